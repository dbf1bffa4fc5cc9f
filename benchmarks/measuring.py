"""One run of a contender as a process of its own, timed from outside."""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click

# Every contender ends an epoch with a line such as "3/4 ... 87.10%", as the train stage does: the
# epoch, and the accuracy on val as the line's one percentage.
EPOCH = re.compile(r"\s*\d+/\d+\s.*?([\d.]+)%")


@dataclass(frozen=True)
class Measurement:
    """What one run took; times in seconds since its process was started."""

    epoch_ends: list[float]
    total: float
    val_accuracy: float  # after the last epoch, in percent
    peak_memory: int  # resident, in bytes

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first, which begins with imports and compilation."""
        return [end - start for start, end in pairwise(self.epoch_ends)]


def measure(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    cores: Sequence[int],
    epochs: int,
) -> Measurement:
    """Run a command in ``folder``, pinned to ``cores``, and note when each line of output comes.

    Raises:
        ClickException: the command failed, or did not print one line per epoch.
    """
    started = time.perf_counter()
    with subprocess.Popen(
        ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = [(time.perf_counter() - started, line) for line in process.stdout]
        # Unlike Popen.wait(), this tells what the one process used.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    total = time.perf_counter() - started
    ends = [(seconds, match[1]) for seconds, line in lines if (match := EPOCH.match(line))]
    if process.returncode or len(ends) != epochs:
        output = "".join(line for _, line in lines[-20:])
        raise click.ClickException(
            f"{' '.join(command)} ended with {process.returncode} after {len(ends)} of {epochs} "
            f"epochs:\n{output}"
        )
    return Measurement(
        epoch_ends=[seconds for seconds, _ in ends],
        total=total,
        val_accuracy=float(ends[-1][1]),
        peak_memory=usage.ru_maxrss * 1024,
    )
