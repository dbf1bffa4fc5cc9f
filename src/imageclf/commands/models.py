"""`imageclf models`."""

import click

from imageclf.commands.common import examples
from imageclf.files import UserError


@click.command(epilog=examples("imageclf models", "imageclf models 'timm/convnext*'"))
@click.argument("pattern", required=False)
def models(pattern: str | None) -> None:
    """List the networks for model.name, and their pretrained weights.

    PATTERN is a part of the name, or has * in it. Without it the networks of timm are left out,
    but for those whose weights are installed. The parameters are those with a thousand classes.
    """
    from imageclf.network.published import count_parameters
    from imageclf.network_names import IMAGE_SIZES, TIMM, TORCHVISION, nearest_networks, timm_names
    from imageclf.sources.published_weights import AT_HAND, find_networks, state_of

    if pattern is None:
        names = [AT_HAND, *TORCHVISION]
    elif not (names := find_networks(pattern)):
        nearest = ", ".join(nearest_networks(pattern))
        raise UserError(f"no network has {pattern} in its name; the nearest: {nearest}")
    width = max(map(len, names))
    click.echo(f"{'model.name':<{width}}  {'parameters':>13}  pretrained weights")
    for name in names:
        click.echo(f"{name:<{width}}  {count_parameters(name):>13,}  {state_of(name)}")
    if pattern is None:
        own = ", ".join(name for name in IMAGE_SIZES if name not in TORCHVISION)
        click.echo(f"\nof this project, as large as section model says: {own}")
        click.echo(f"of timm: {len(timm_names()):,} more, imageclf models '{TIMM}*'")
