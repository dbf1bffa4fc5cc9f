"""`imageclf use`."""

import click

from imageclf.commands.common import examples


@click.command(epilog=examples("imageclf use", "imageclf use fashion_part5_dropout"))
@click.argument("recipe", required=False)
def use(recipe: str | None) -> None:
    """Put the settings of RECIPE into params.yaml, or list the recipes.

    Only parameters that determine the model change. Comments, and the data.source of your own
    images, stay.
    """
    from imageclf.params import load_params
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
    data = load_params().data
    if data.name == "image_folder" and not data.source:
        click.echo(
            "next: set data.source in params.yaml to your folder of pictures, then dvc repro"
        )
    else:
        click.echo("next: dvc repro")
