"""The outs of the other stages -> MLflow; on disk only the journal is written."""

import click

from command import stage
from imageclf.params import Params
from imageclf.text import printable


@stage
def main(params: Params) -> None:
    """Bring MLflow up to date: run, metrics, pictures, model version and aliases."""
    from imageclf.lineage.publish import register

    done, record = register(params)
    click.echo(f"run: {done.run_name}{' (restored from a cache)' if record.restored else ''}")
    aliases = f", {' and '.join(done.aliases)}" if done.aliases else ""
    click.echo(f"model: {params.register_.name} version {done.version}{aliases}")
    click.echo(f"champion: {printable(done.decision)}")
    if done.remark:
        click.echo(f"not compared with the champion: {printable(done.remark)}", err=True)
    click.echo(f"compare the runs: {done.store if done.store.startswith('http') else 'make ui'}")


if __name__ == "__main__":
    main()
