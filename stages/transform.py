"""data/raw -> data/prepared, reports/data.json and reports/data.html."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from command import stage
from imageclf.files import UserError, atomic_folder, read_json, write_json
from imageclf.params import Params
from imageclf.workers import prepare_workers

RAW, PREPARED = Path("data/raw"), Path("data/prepared")
FIGURES, PAGE = Path("reports/data.json"), Path("reports/data.html")
NOTHING_LEFT_OUT = {"count": 0, "examples": []}


@stage
def main(params: Params) -> None:
    """Pack images into uint8 arrays, draw the splits, and audit the data."""
    if params.data.name == "image_folder":
        prepare_workers("imageclf.packing")

    from imageclf.audit import audit, passed_limit
    from imageclf.audit_report import write_audit_report
    from imageclf.blocks import clear_blocks
    from imageclf.datasets import load_class_names
    from imageclf.preparation import BLOCKS, prepare

    source = read_json(RAW / "source.json")
    check_top_k(params, source.get("classes"))
    with atomic_folder(PREPARED) as target:
        manifest = prepare(params, RAW, target, Console(soft_wrap=True, highlight=False))
        left_out = source.get("left_out", NOTHING_LEFT_OUT)
        found = audit(manifest, load_class_names(target), left_out)
        problem = passed_limit(found, params.data)
        write_json(FIGURES, found)
        write_audit_report(PAGE, target, manifest, found, problem)
        if problem:
            raise UserError(f"{problem}: see {PAGE}")
    clear_blocks(PREPARED.parent / BLOCKS)
    counts = ", ".join(f"{count:,} {split}" for split, count in found["images"].items())
    click.echo(f"prepared {counts} images of {params.transform.image_size} pixels")
    for remark in remarks(found):
        click.echo(f"  {remark}")
    click.echo(f"audit: {PAGE}")


def check_top_k(params: Params, class_names: list[str] | None) -> None:
    """Say before the work, and not after the training, that a share of it would mean nothing."""
    if class_names and params.evaluate.top_k >= len(class_names):
        raise UserError(
            f"evaluate.top_k: {params.evaluate.top_k} is no less than {len(class_names)} classes"
        )


def remarks(found: dict[str, Any]) -> Iterator[str]:
    """What is worth a look, in a line each."""
    if bad := found["unreadable"]["images"]:
        yield f"{bad:,} files are no readable images and left out"
    if converted := sum(found["converted"].values()):
        yield f"{converted:,} images converted"
    for split, repeats in found["repeats"].items():
        if repeats:
            yield f"{split}: {repeats:,} images repeat another one of the split"
    for leak in found["leaks"]:
        if leak["images"]:
            first, second = leak["splits"]
            yield (
                f"{leak['images']:,} images of {second} also stand in {first}"
                f" ({leak['with_another_label']} with another label)"
            )
    if contradictions := found["contradictions"]["images"]:
        yield f"{contradictions:,} images stand in several classes"


if __name__ == "__main__":
    main()
