"""Seconds an epoch of the course's Part 4, side by side: `make bench`.

All contenders do the same work on the same data: Fashion-MNIST, 54,000 images to train on in a new
random order each epoch, batches of 64, 784-256-64-10 with ReLU, Adam at 0.003, then loss and
accuracy on 6,000 other images. Keras and Lightning run with the settings that were fastest when
tried; the course's loop is left as the course has it.

What makes the comparison fair:

- One clock for all, outside their processes: an epoch is the time between two lines of output, so
  that validation, tracking and progress count. No contender reports its own speed.
- Every run is a process of its own on the same cores, once on one core and once on two, and the
  contenders take turns (A B C A B C), so that a slow spell of the machine hits them all.
- On two cores, whatever runs on PyTorch is measured with two threads and with one: at this size
  the second may help or harm. Only ours is left to its own rule, `runtime.threads: auto`.
- Imports, compilation and the first epoch stand in a column of their own, and so does the whole
  run until the process has ended.
- The accuracy on val shows that all of them learn the same.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import click

from measuring import Measurement, measure
from table import machine, table
from workspace import PROJECT, prepare_interpreter, prepare_project, versions

SCRIPTS = Path(__file__).parent / "contenders"


@dataclass(frozen=True)
class Contender:
    """A script of contenders/ with its first arguments; epochs and seed follow them."""

    name: str
    script: tuple[str, ...]
    requirements: str | None  # requirements-NAME.txt; none is the product's own environment
    packages: tuple[str, ...]  # whose versions are stated
    one_thread: bool = False


OURS = Contender("imageclf", ("imageclf_stage.py",), None, ("torch", "mlflow"))
# Those that run on PyTorch and leave the number of threads to it.
PYTORCH = (
    Contender("the course's loop", ("course.py",), None, ("torch", "torchvision")),
    Contender("Keras on torch", ("keras_fit.py", "torch"), "torch", ("keras", "torch")),
    Contender(
        "Keras on torch, compiled", ("keras_fit.py", "torch-compiled"), "torch", ("keras", "torch")
    ),
    Contender("Lightning", ("lightning_fit.py",), "torch", ("lightning", "torch")),
)
CONTENDERS = (
    OURS,
    *PYTORCH,
    Contender("Keras on JAX", ("keras_fit.py", "jax"), "jax", ("keras", "jax")),
    Contender(
        "Keras on TensorFlow",
        ("keras_fit.py", "tensorflow"),
        "tensorflow",
        ("keras", "tensorflow-cpu"),
    ),
)
ONE_THREAD = tuple(
    replace(each, name=f"{each.name}, one thread", one_thread=True) for each in PYTORCH
)


def run_once(contender: Contender, cores: list[int], epochs: int, seed: int) -> Measurement:
    """One run of a contender, with as many threads as cores unless it is to have one."""
    script, *arguments = contender.script
    threads = str(1 if contender.one_thread else len(cores))
    return measure(
        [
            str(prepare_interpreter(contender.requirements)),
            str(SCRIPTS / script),
            *arguments,
            str(epochs),
            str(seed),
        ],
        folder=PROJECT,
        variables={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        cores=cores,
        epochs=epochs,
    )


def run_all(
    contenders: Sequence[Contender], cores: list[int], epochs: int, rounds: int
) -> dict[str, list[Measurement]]:
    """Let the contenders take turns on the same cores; the runs of each by its name."""
    measured = defaultdict(list)
    for turn in range(1, rounds + 1):
        for contender in contenders:
            # No seed twice: the train stage would find the run of the first in MLflow.
            run = run_once(contender, cores, epochs, seed=100 * len(cores) + turn)
            measured[contender.name].append(run)
            click.echo(
                f"{len(cores)} core(s), round {turn}/{rounds}: {contender.name},"
                f" {median(run.epochs):.2f} s an epoch",
                err=True,
            )
    return dict(measured)


def write_page(contenders: Sequence[Contender], tables: Sequence[str], conditions: str) -> str:
    """The results as Markdown: how they came about, then a table for each number of cores."""
    stated = {
        f"{each.name}: {versions(prepare_interpreter(each.requirements), each.packages)}"
        for each in contenders
        if not each.one_thread
    }
    return "\n\n".join(
        [
            "# Seconds an epoch of the course's Part 4",
            "Written by `make bench`; benchmarks/run.py tells what is measured and how.",
            conditions,
            "\n".join(f"- {line}" for line in sorted(stated)),
            *tables,
        ]
    )


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--quick", is_flag=True, help="One round of two epochs instead of three of four.")
@click.option(
    "--only",
    type=click.Choice([each.name for each in (*CONTENDERS, *ONE_THREAD)], case_sensitive=False),
    multiple=True,
    help="Measure this contender alone; may be given several times.",
)
def main(quick: bool, only: tuple[str, ...]) -> None:
    epochs, rounds = (2, 1) if quick else (4, 3)
    chosen = [each for each in (*CONTENDERS, *ONE_THREAD) if not only or each.name in only]
    for each in chosen:
        prepare_interpreter(each.requirements)
    prepare_project()
    conditions = f"{machine()}. {rounds} round(s) of {epochs} epochs, the first not counted."
    tables = []
    available = sorted(os.sched_getaffinity(0))
    for cores in (available[:1], available[:2])[: len(available)]:
        # One thread is what a single core gives anyway.
        fitting = [each for each in chosen if len(cores) > 1 or not each.one_thread]
        measured = run_all(fitting, cores, epochs, rounds)
        tables.append(f"## On {len(cores)} core(s)\n\n{table(measured, OURS.name)}")
    page = write_page(chosen, tables, conditions)
    click.echo(page)
    if not (quick or only):
        Path(__file__).with_name("results.md").write_text(f"{page}\n")


if __name__ == "__main__":
    main()
