"""`imageclf predict`."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageclf.commands import check_png, examples
from imageclf.files import UserError

if TYPE_CHECKING:
    from imageclf.prediction import Prediction

EXPORTED = Path("models/exported")
CLASSES_SHOWN = 3
FIGURE_ROWS = 12
# From this number of images on, a progress bar is worth its line.
MANY = 100

# Class names with their probabilities, the likeliest first.
Classes = list[tuple[str, float]]


@click.command(
    epilog=examples(
        "imageclf predict shoe.jpg --figure shoe.png",
        "imageclf predict photos/ --top-k 1",
        "imageclf predict photos/ --json > predictions.jsonl",
        "find . -name '*.png' | imageclf predict - --model models:/fashion-mnist@champion",
    )
)
@click.argument("images", nargs=-1)
@click.option(
    "--model",
    default=str(EXPORTED),
    show_default=True,
    metavar="MODEL",
    help="Exported folder, .onnx file or registered model: models:/NAME@champion, models:/NAME/3.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Show the N likeliest classes.  [default: {CLASSES_SHOWN}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help=f"Draw the first {FIGURE_ROWS} images, as the network sees them, beside their "
    "probabilities.",
)
def predict(
    images: tuple[str, ...], model: str, top_k: int | None, as_json: bool, figure: Path | None
) -> None:
    """Print the likeliest classes of IMAGES.

    IMAGES are files, folders (searched for images at any depth), or - to read paths from standard
    input, one a line. Files that are no images are listed at the end, with exit code 2.
    """
    from imageclf.images import ImageError
    from imageclf.prediction import likeliest, load_exported

    if figure:
        check_png("--figure", figure)
    paths = list(_image_paths(images))
    if not paths:
        raise UserError("no images given: name files or folders, or - for paths on standard input")
    classifier = load_exported(_model_path(model))
    if top_k and top_k > len(classifier.class_names):
        raise UserError(f"--top-k {top_k}: {model} knows {len(classifier.class_names)} classes")
    line: Callable[[Path, Classes], str] = (
        _json_line if as_json else _text_line(paths, classifier.class_names)
    )
    drawn: list[Prediction] = []
    unreadable: list[ImageError] = []
    with _progress_bar(len(paths)) as advance:
        for result in classifier.predict(paths):
            if isinstance(result, ImageError):
                unreadable.append(result)
            else:
                count = top_k or CLASSES_SHOWN
                classes = likeliest(result.probabilities, classifier.class_names, count)
                click.echo(line(result.path, classes))
                drawn += [result] if len(drawn) < FIGURE_ROWS else []
            advance()
    if figure and drawn:
        _draw(drawn, classifier.class_names, figure)
    for error in unreadable:
        click.echo(f"unreadable: {error}", err=True)
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(paths)} images could not be read")


def _image_paths(names: Iterable[str]) -> Iterator[Path]:
    """Every file that the arguments name: folders searched, - read from standard input."""
    from imageclf.images import find_images

    for name in names:
        path = Path(name)
        if name == "-":
            lines = sys.stdin.buffer.read().splitlines()
            yield from _image_paths(os.fsdecode(line) for line in lines if line)
        elif path.is_dir():
            found = find_images(path)
            if not found:
                raise UserError(f"there are no images in {path}")
            yield from found
        else:
            yield path


def _model_path(model: str) -> Path:
    if not model.startswith("models:/"):
        return Path(model)
    from imageclf.registry import download_model

    return download_model(model)


def _text_line(paths: list[Path], class_names: list[str]) -> Callable[[Path, Classes], str]:
    """What prints a prediction, in columns wide enough for every path and class."""
    path_width = max(len(str(path)) for path in paths)
    name_width = max(map(len, class_names))

    def line(path: Path, classes: Classes) -> str:
        columns = [f"{name:<{name_width}} {probability:>6.1%}" for name, probability in classes]
        return "  ".join([click.format_filename(f"{path!s:<{path_width}}"), *columns])

    return line


def _json_line(path: Path, classes: Classes) -> str:
    predictions = [
        {"class": name, "probability": round(probability, 6)} for name, probability in classes
    ]
    return json.dumps({"image": str(path), "predictions": predictions})


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[], object]]:
    """A bar on standard error, where that is a terminal and no lines scroll by to tell as much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=total < MANY or sys.stdout.isatty() or not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _draw(drawn: "list[Prediction]", class_names: list[str], path: Path) -> None:
    from imageclf.plots import BARS, image_with_probabilities, save_figure
    from imageclf.prediction import likeliest

    figure = image_with_probabilities(
        [prediction.image for prediction in drawn],
        [prediction.path.name for prediction in drawn],
        [likeliest(prediction.probabilities, class_names, BARS) for prediction in drawn],
    )
    save_figure(figure, path)
    click.echo(f"figure: {path}", err=True)
