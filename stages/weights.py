"""The source of pretrained weights -> models/pretrained."""

import click
from rich.console import Console

from command import stage
from imageclf.params import Params
from imageclf.project.folder import PRETRAINED
from imageclf.sources.weights import fetch_weights
from imageclf.text import printable
from imageclf.tracking.queries import download_classifier


@stage
def main(params: Params) -> None:
    """Fetch and check the pretrained weights; nothing if the training draws its own."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    pretrained = fetch_weights(params.model, PRETRAINED, console, download_classifier)
    if pretrained is None:
        click.echo("model.weights: none, so they are drawn at random")
        return
    origin = pretrained.origin
    click.echo(
        f"{pretrained.architecture['name']} begins with {printable(origin['title'])}, sha256 "
        f"{origin['sha256'][:12]} -> {PRETRAINED}"
    )
    if params.model.weights != "imagenet" and "#" not in params.model.weights:
        click.echo("  if they changed since: dvc repro --force weights && dvc repro")


if __name__ == "__main__":
    main()
