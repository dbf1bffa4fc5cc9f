"""data/raw -> data/prepared, reports/data.json and reports/data.html."""

import click
from rich.console import Console

from command import stage
from imageclf.files import UserError, atomic_folder, read_json, write_json
from imageclf.network_names import is_published
from imageclf.params import Params
from imageclf.project.folder import AUDIT, AUDIT_PAGE, OWN_INPUT, PREPARED, RAW
from imageclf.system.workers import mapping, prepare_workers
from imageclf.text import printable


@stage
def main(params: Params) -> None:
    """Pack images into uint8 arrays, draw the splits, and audit the data."""
    are_files = params.data.name == "image_folder"
    if are_files:
        prepare_workers(
            "command", "imageclf.preparation.dealing"
        )  # a worker runs this script's imports too

    from imageclf.data.prepared import SPLITS, load_class_names
    from imageclf.preparation.audit import audit, passed_limit, remarks
    from imageclf.preparation.audit_page import write_audit_report
    from imageclf.preparation.blocks import clear_blocks
    from imageclf.preparation.prepare import BLOCKS, prepare

    source = read_json(RAW / "source.json")
    params = with_own_input(params)
    console = Console(soft_wrap=True, highlight=False)
    with atomic_folder(PREPARED) as target, mapping(over_processes=are_files) as mapped:
        manifest, digests = prepare(params, RAW, target, console, mapped)
        found = audit(manifest, load_class_names(target), source)
        problem = passed_limit(found, params.data)
        write_json(AUDIT, found)
        write_audit_report(AUDIT_PAGE, target, manifest, found, problem)
        if problem:
            raise UserError(f"{problem}: see {AUDIT_PAGE}")
        write_json(target / "digests.json", dict(zip(SPLITS, digests, strict=True)))
    clear_blocks(PREPARED.parent / BLOCKS)
    counts = ", ".join(f"{count:,} {split}" for split, count in found["images"].items())
    click.echo(f"prepared {counts} images of {params.transform.side} pixels")
    for remark, _ in remarks(found):
        click.echo(f"  {printable(remark)}")
    click.echo(f"audit: {AUDIT_PAGE}")


def with_own_input(params: Params) -> Params:
    """The parameters, where they leave it to a published network what images it gets."""
    if not is_published(params.model.name):
        return params
    own = read_json(OWN_INPUT)
    return params.model_copy(update={"transform": params.transform.with_input(own)})


if __name__ == "__main__":
    main()
