"""The places that hold the data set -> data/raw."""

import click
from rich.console import Console
from rich.filesize import decimal

from command import stage
from imageclf.params import Params
from imageclf.project.folder import RAW
from imageclf.sources.catalog import fetch
from imageclf.sources.image_folder import fetch_images


@stage
def main(params: Params) -> None:
    """Bring the data set: known files, each checked against its sha256, or images of the user's."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if params.data.name == "image_folder":
        images = fetch_images(params.data.source, RAW, console)
        click.echo(
            f"fetched {len(images.images):,} images in {len(images.class_names)} classes, "
            f"{decimal(images.bytes)} -> {RAW}"
        )
        if images.left_out:
            click.echo(
                f"  left out: {len(images.left_out)} other files; "
                f"{RAW}/source.json names the first of them"
            )
    else:
        data_set = fetch(params.data.name, RAW, console)
        click.echo(
            f"fetched {data_set.title}: {len(data_set.files)} files, {decimal(data_set.bytes)}"
            f" -> {RAW}"
        )


if __name__ == "__main__":
    main()
