"""`imageclf`: what a user types. Each command imports what it needs when it runs."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageclf.commands import examples
from imageclf.commands.runs import runs
from imageclf.commands.sync import sync
from imageclf.files import UserError, read_json

if TYPE_CHECKING:
    from imageclf.prediction import Prediction

PREPARED = Path("data/prepared")
EXPORTED = Path("models/exported")
REPORT = Path("reports/evaluation/index.html")
CLASSES_SHOWN = 3
FIGURE_ROWS = 12
MOST_SHOWN = 256
# From this number of images on, a progress bar is worth its line.
MANY = 100

# Class names with their probabilities, the likeliest first.
Classes = list[tuple[str, float]]


class _Commands(click.Group):
    """A group whose errors that the user can mend are one line, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "imageclf use                  list the recipes",
        "imageclf use digits_mlp       put one into params.yaml",
        "imageclf show                 what the network will see of the images",
        "dvc repro                     train, evaluate, export, register",
        "imageclf summary              what came out, and where it is",
        "imageclf runs                 every training and what it reached",
        "imageclf predict photo.jpg    the classes of your own images",
    ),
)
def main() -> None:
    """Choose a recipe, train it with `dvc repro`, and use what came out."""


@main.command(
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
        _check_png("--figure", figure)
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


@main.command(epilog=examples("imageclf use", "imageclf use fashion_part5_dropout"))
@click.argument("recipe", required=False)
def use(recipe: str | None) -> None:
    """Put the settings of RECIPE into params.yaml, or list the recipes.

    Only the parameters that the recipe lists change; comments stay.
    """
    from imageclf.recipes import find_recipe, load_recipes, use_recipe

    if recipe is None:
        recipes = load_recipes()
        width = max(len(item.name) for item in recipes)
        for item in recipes:
            click.echo(f"{item.name:<{width}}  {item.title}")
        return
    changes = use_recipe(find_recipe(recipe))
    if not changes:
        click.echo(f"params.yaml already holds {recipe}: nothing changed")
    width = max((len(change.key) for change in changes), default=0)
    for change in changes:
        before = "unset" if change.before is None else change.before
        click.echo(f"{change.key:<{width}}  {before} -> {change.after}")
    click.echo("next: dvc repro")


@main.command(epilog=examples("imageclf show", "imageclf show --count 32 --output seen.png"))
@click.option(
    "--count",
    type=click.IntRange(1, MOST_SHOWN),
    default=16,
    show_default=True,
    metavar="N",
    help=f"Draw N images, {MOST_SHOWN} at most.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("show.png"),
    show_default=True,
    metavar="PNG",
    help="The picture to write.",
)
def show(count: int, output: Path) -> None:
    """Draw train images as they are and, below each, as the network sees them.

    The images are those that the training sees first, changed as `augment` in params.yaml says.
    """
    _check_png("--output", output)
    from imageclf.params import load_params

    params = load_params()

    from imageclf.datasets import load_class_names, load_split
    from imageclf.plots import save_figure
    from imageclf.report import seen_images

    train, class_names = load_split(PREPARED, "train"), load_class_names(PREPARED)
    save_figure(seen_images(params, train, class_names, count), output)
    click.echo(f"picture: {output}")


@main.command()
def summary() -> None:
    """Show what came out of the pipeline, and where it is."""
    metrics = read_json(Path("reports/metrics.json"))
    description = read_json(Path("models/classifier/model.json"))
    exported = sorted(path for path in EXPORTED.glob("model.*"))
    rows = [
        (
            "test accuracy",
            f"{metrics['accuracy']:.2%}  (99% interval from {metrics['accuracy_low']:.2%};"
            f" always guessing one class: {metrics['majority_accuracy']:.2%})",
        ),
        *_top_k_rows(metrics),
        ("test images", f"{metrics['images']:,}"),
        ("fingerprint", description["fingerprint"]),
        ("report", str(REPORT)),
        ("plots", "dvc plots show"),
        ("exported model", "  ".join(map(str, exported)) or "missing: run `dvc repro`"),
        ("runs and models", "make ui"),
        ("your own images", "imageclf predict IMAGE"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _top_k_rows(metrics: dict[str, float]) -> Iterator[tuple[str, str]]:
    for key, value in metrics.items():
        if match := re.fullmatch(r"top_(\d+)_accuracy", key):
            yield f"among the top {match[1]}", f"{value:.2%}"


def _check_png(option: str, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UserError(f"{option} {path}: the figure is a PNG, so name it {path.stem}.png")


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
    from imageclf.tracking import download_model

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


main.add_command(runs)
main.add_command(sync)
