"""The measurements as a page of Markdown."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from measuring import Measurement

HEADER = (
    "contender",
    "seconds an epoch: median (min to max)",
    "ratio to imageclf",
    "first epoch done after, s",
    "whole run, s",
    "val accuracy",
    "peak memory, MB",
)


def table(measured: Mapping[str, Sequence[Measurement]], ours: str) -> str:
    """One row per contender, the fastest first; every value is a median over its runs.

    Args:
        measured: the runs of each contender, all on the same cores.
        ours: the contender that the others are divided by, if it is among them.
    """
    epochs = {name: [s for run in runs for s in run.epochs] for name, runs in measured.items()}
    unit = median(epochs[ours]) if ours in epochs else None
    rows = [
        (
            f"**{name}**" if name == ours else name,
            f"{median(epochs[name]):.2f} ({min(epochs[name]):.2f} to {max(epochs[name]):.2f})",
            f"{median(epochs[name]) / unit:.2f}" if unit else "",
            f"{median(run.epoch_ends[0] for run in measured[name]):.1f}",
            f"{median(run.total for run in measured[name]):.1f}",
            f"{median(run.val_accuracy for run in measured[name]):.1f} %",
            f"{median(run.peak_memory for run in measured[name]) / 1e6:,.0f}",
        )
        for name in sorted(measured, key=lambda name: median(epochs[name]))
    ]
    rule = ("---", *["---:"] * (len(HEADER) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEADER, rule, *rows))


def machine() -> str:
    """The machine in one line; the load tells whether it was quiet when the benchmark began."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(": ")[1] for line in cpuinfo.splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"Linux, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.2f} at the start"
    )
