"""The sources of the data set -> data/raw."""

import click
from rich.console import Console
from rich.filesize import decimal
from rich.padding import Padding

from command import stage
from imageclf.params import Params
from imageclf.project.folder import RAW
from imageclf.sources.catalog import fetch
from imageclf.sources.collection import Collected, class_table, counted
from imageclf.sources.image_folder import fetch_images
from imageclf.text import printable


def tell_what_was_understood(images: Collected, console: Console) -> None:
    """Print the classes and splits, and which files are left out."""
    console.print(Padding.indent(class_table(images.places), 2), width=80)
    for split, patterns in images.layout.items():
        click.echo(
            f"  {split}: {printable(', '.join(patterns))} (* at its last place is the class)"
        )
    if images.unsupported:
        click.echo(
            f"  of a format that is not supported, counted by data.max_bad_fraction: "
            f"{counted(images.unsupported)}"
        )
    for reason in sorted({file["reason"] for file in images.left_out}):
        names = [file["name"] for file in images.left_out if file["reason"] == reason]
        click.echo(f"  left out, {reason}: {counted(names)}; {RAW}/source.json names the first")


@stage
def main(params: Params) -> None:
    """Fetch the data set: known files, checked against their sha256, or the user's images."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if params.data.name == "image_folder":
        images = fetch_images(params.data.source, RAW, console, params.data.splits)
        click.echo(
            f"fetched {len(images.images):,} images in {len(images.class_names)} classes, "
            f"{decimal(images.bytes)} -> {RAW}"
        )
        tell_what_was_understood(images, console)
    else:
        data_set = fetch(params.data.name, RAW, console)
        click.echo(
            f"fetched {data_set.title}: {len(data_set.files)} files, {decimal(data_set.bytes)}"
            f" -> {RAW}"
        )


if __name__ == "__main__":
    main()
