"""`imageclf show`."""

from pathlib import Path

import click

from imageclf.commands.common import check_png, examples
from imageclf.project.folder import PREPARED


@click.command(epilog=examples("imageclf show", "imageclf show --count 32 --output seen.png"))
@click.option(
    "--count",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    metavar="N",
    help="Draw N images.",
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
    """Draw train images as they are, and as the network sees them.

    The images are those that the training sees first, changed as `augment` in params.yaml says.
    """
    check_png("--output", output)
    from imageclf.params import load_params

    params = load_params()

    from imageclf.data.prepared import load_class_names, load_split
    from imageclf.drawing.plots import pairs, save_figure
    from imageclf.training.preview import preview

    train, class_names = load_split(PREPARED, "train"), load_class_names(PREPARED)
    save_figure(pairs(**vars(preview(params, train, class_names, count))), output)
    click.echo(f"picture: {output}")
