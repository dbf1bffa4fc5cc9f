"""`imageclf predict`."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import check_png, examples
from imageclf.files import UserError
from imageclf.project.folder import EXPORTED
from imageclf.text import printable

if TYPE_CHECKING:
    from imageclf.data.opening import ImageError
    from imageclf.inference.prediction import ExportedClassifier, Prediction

CLASSES_SHOWN = 3
FIGURE_ROWS = 12
MANY = 100  # images from which a progress bar is shown
CLASSES_COUNTED = 5


@click.command(
    epilog=examples(
        "imageclf predict shoe.jpg --figure shoe.png",
        "imageclf predict drawings/ --invert",
        "imageclf predict photos/ --top-k 1",
        "imageclf predict photos/ --output predictions.csv",
        "imageclf predict photos/ --json | jq .image",
        "find . -name '*.png' | imageclf predict - --model fashion-mnist@champion",
    )
)
@click.argument("images", nargs=-1)
@click.option(
    "--model",
    default=str(EXPORTED),
    show_default=True,
    metavar="MODEL",
    help="The model, named as for `imageclf trace`; of a path, the exported folder or .onnx file.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Show the N likeliest classes.  [default: {CLASSES_SHOWN}]",
)
@click.option(
    "--invert", is_flag=True, help="Show the network the negatives, as of drawings on white."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to a .csv or .parquet (a row per image, with the probability of every class) or "
    ".jsonl file (as --json), whole or not at all, instead of printing.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help=f"Draw the first {FIGURE_ROWS} images, as the network sees them, beside their "
    "probabilities.",
)
def predict(
    images: tuple[str, ...],
    model: str,
    top_k: int | None,
    invert: bool,
    as_json: bool,
    output: Path | None,
    figure: Path | None,
) -> None:
    """Print the likeliest classes of IMAGES.

    An image that is unlike those of the training gets a note: its classes mean little.

    IMAGES are files, folders (searched for images at any depth), or - to read paths from standard
    input, one a line. Files that are no images are listed at the end, with exit code 2.
    """
    from imageclf.data.opening import ImageError

    _check_targets(as_json, output, figure)
    paths = list(_image_paths(images))
    if not paths:
        raise UserError("no images given: name files or folders, or - for paths on standard input")
    classifier, name = _loaded(model, top_k)
    drawn: list[Prediction] = []
    unreadable: list[ImageError] = []
    found: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    with (
        _writer(paths, classifier.class_names, top_k or CLASSES_SHOWN, as_json, output) as write,
        _progress(len(paths), output) as advance,
    ):
        for result in classifier.predict(paths, invert):
            if isinstance(result, ImageError):
                unreadable.append(result)
            else:
                write(result)
                found[classifier.class_names[result.probabilities.argmax()]] += 1
                notes[result.note] += 1
                drawn += [result] if len(drawn) < FIGURE_ROWS else []
            advance(1)
    if output:
        click.echo("\n".join(_summary(output, found, notes)))
    if figure and drawn:
        _draw(drawn, classifier.class_names, figure)
    click.echo(f"model: {printable(name)}, fingerprint {classifier.fingerprint[:8]}", err=True)
    _name(unreadable, len(paths))


def _check_targets(as_json: bool, output: Path | None, figure: Path | None) -> None:
    from imageclf.inference.outputs import check_kind

    if figure:
        check_png("--figure", figure)
    if output:
        check_kind(output)
    if output and as_json:
        raise UserError("--json prints and --output writes a file: give one of them")


def _image_paths(names: Iterable[str]) -> Iterator[Path]:
    """Every file that the arguments name, in folders and on standard input too."""
    from imageclf.data.decoding import find_images

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


def _loaded(model: str, top_k: int | None) -> "tuple[ExportedClassifier, str]":
    """A model that knows ``top_k`` classes, and the name by which it answers."""
    from imageclf.inference.prediction import load_exported
    from imageclf.lineage.names import is_version

    if Path(model).exists() or ("/" in model and not is_version(model)):
        classifier, name = load_exported(Path(model)), model
    else:
        from imageclf.lineage.find import uri_named
        from imageclf.tracking.registry import downloaded_model

        with downloaded_model(uri_named(model)) as (folder, name):
            classifier = load_exported(folder)
    if top_k and top_k > len(classifier.class_names):
        raise UserError(f"--top-k {top_k}: {model} knows {len(classifier.class_names)} classes")
    return classifier, name


def _name(unreadable: "list[ImageError]", images: int) -> None:
    """Name the files that are no images; a UserError if there are any."""
    for error in unreadable:
        click.echo(f"unreadable: {error}", err=True)
    if unreadable:
        raise UserError(f"{len(unreadable)} of {images} images could not be read")


def _writer(
    paths: list[Path], class_names: Sequence[str], top_k: int, as_json: bool, output: Path | None
) -> "AbstractContextManager[Callable[[Prediction], object]]":
    """The function that writes each prediction to the file, or to standard output."""
    from imageclf.inference.outputs import json_line, predictions_file

    if output:
        return predictions_file(output, class_names, top_k)
    if as_json:
        return nullcontext(lambda result: click.echo(json_line(result, class_names, top_k)))
    line = _text_line(paths, class_names, top_k)
    return nullcontext(lambda result: click.echo(line(result)))


def _text_line(
    paths: list[Path], class_names: Sequence[str], top_k: int
) -> "Callable[[Prediction], str]":
    """The function that formats a prediction in columns that fit every path and class."""
    from rich.cells import cell_len, set_cell_size

    from imageclf.inference.prediction import likeliest

    path_width = max(cell_len(printable(path)) for path in paths)
    names = [printable(name) for name in class_names]
    name_width = max(map(cell_len, names))

    def line(result: "Prediction") -> str:
        classes = likeliest(result.probabilities, names, top_k)
        columns = [
            f"{set_cell_size(name, name_width)} {probability:>6.1%}"
            for name, probability in classes
        ]
        path = set_cell_size(printable(result.path), path_width)
        return "  ".join([path, *columns, *filter(None, [result.note])])

    return line


def _progress(total: int, output: Path | None) -> AbstractContextManager[Callable[[int], None]]:
    """A bar on standard error, unless predictions are printed on the terminal."""
    from rich.console import Console

    from imageclf.system.progress import image_progress

    lines_scroll = sys.stdout.isatty() and not output
    return image_progress(Console(stderr=True, quiet=total < MANY or lines_scroll), total)


def _summary(output: Path, found: Counter[str], notes: Counter[str]) -> Iterator[str]:
    """The number of images in the file, their commonest classes, and the images with a note."""
    counts = [f"{count:,} {printable(name)}" for name, count in found.most_common(CLASSES_COUNTED)]
    rest = [f"{len(found) - CLASSES_COUNTED} more classes"] if len(found) > CLASSES_COUNTED else []
    yield ": ".join([printable(output), f"{found.total():,} images", ", ".join([*counts, *rest])])
    for note, count in notes.items():
        if note:
            yield f"{count:,} {'is' if count == 1 else 'are'} {note}"


def _draw(drawn: "list[Prediction]", class_names: list[str], path: Path) -> None:
    from imageclf.drawing.plots import BARS, image_with_probabilities, save_figure
    from imageclf.inference.prediction import likeliest

    figure = image_with_probabilities(
        [prediction.image for prediction in drawn],
        [prediction.path.name for prediction in drawn],
        [likeliest(prediction.probabilities, class_names, BARS) for prediction in drawn],
    )
    save_figure(figure, path)
    click.echo(f"figure: {printable(path)}", err=True)
