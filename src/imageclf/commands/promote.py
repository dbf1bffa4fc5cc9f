"""`imageclf promote`."""

import click

from imageclf.commands.common import examples
from imageclf.text import printable


@click.command(
    epilog=examples(
        "imageclf promote digits              the newest version",
        "imageclf promote digits/3            that one",
        "imageclf promote --back digits       the previous champion again",
    )
)
@click.argument("model")
@click.option("--back", is_flag=True, help="Make the previous champion the champion again.")
@click.pass_context
def promote(ctx: click.Context, model: str, back: bool) -> None:
    """Make MODEL the champion if it passes the gate.

    MODEL is named as for `imageclf trace`: NAME for the newest version. It passes if it was
    tested on the same data as the champion and is better beyond what chance explains,
    is better than always guessing the commonest class, its exported file agrees with the model,
    and the audit found its data clean. `dvc repro` applies the same gate to every model.

    Exit code 2 if it is refused. The reasons are kept as the version's tag `promotion`.
    """
    from imageclf.tracking import registry

    if back:
        later, earlier = registry.take_back(model)
        click.echo(f"champion: version {earlier}, no longer version {later}")
        return
    done = registry.promote(_numbered(model))
    verdict = "promoted" if done.decision.promoted else "refused"
    reasons = printable("; ".join(done.decision.reasons))
    click.echo(f"{verdict}: version {done.version}: {reasons}")
    click.echo(f"champion: {f'version {done.champion}' if done.champion else 'none'}")
    ctx.exit(0 if done.decision.promoted else 2)


def _numbered(model: str) -> str:
    from imageclf.lineage.find import uri_named, version_named

    if "@" not in model:
        return uri_named(model)
    version = version_named(model)
    return f"{version.name}/{version.number}"
