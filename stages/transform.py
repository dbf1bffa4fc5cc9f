"""data/raw -> data/prepared and reports/data.json."""

from pathlib import Path

import click

from command import stage
from imageclf.datasets import prepare
from imageclf.files import atomic_folder, write_json
from imageclf.params import Params


@stage
def main(params: Params) -> None:
    """Pack images into uint8 arrays, draw the splits, and audit the data."""
    with atomic_folder(Path("data/prepared")) as target:
        audit = prepare(params, Path("data/raw"), target)
    write_json(Path("reports/data.json"), audit)
    counts = ", ".join(f"{count:,} {split}" for split, count in audit["images"].items())
    click.echo(f"prepared {counts} images of {params.transform.image_size} pixels")
    for split, repeats in audit["repeats"].items():
        if repeats:
            click.echo(f"  {split}: {repeats} images repeat another one of the split")
    for leak in audit["leaks"]:
        if leak["images"]:
            first, second = leak["splits"]
            click.echo(
                f"  {leak['images']} images of {second} also stand in {first}"
                f" ({leak['with_another_label']} with another label)"
            )
    click.echo("audit: reports/data.json")


if __name__ == "__main__":
    main()
