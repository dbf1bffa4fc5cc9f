"""The places that hold the data set -> data/raw."""

from pathlib import Path

import click
from rich.console import Console
from rich.filesize import decimal

from command import stage
from imageclf.params import Params
from imageclf.sources import fetch

RAW = Path("data/raw")


@stage
def main(params: Params) -> None:
    """Bring the data set's files, each checked against its known sha256."""
    data_set = fetch(params.data.name, RAW, Console(soft_wrap=True, highlight=False, markup=False))
    click.echo(
        f"fetched {data_set.title}: {len(data_set.files)} files, {decimal(data_set.bytes)} -> {RAW}"
    )


if __name__ == "__main__":
    main()
