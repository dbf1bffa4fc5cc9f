"""The house rules that code cannot state: who imports whom, and what each stage depends on."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from imageclf.params import known_keys, read_yaml

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "src/imageclf"
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# Imports run one way: a module may import its own layer and those before it.
LAYERS = [
    {
        "files",
        "machine",
        "params",
        "runtime",
        "layout",
        "images",
        "guard",
        "page",
        "progress",
        "folder",
        "git",
    },
    {"augment", "initialization", "losses", "optimization", "checkpoint", "group"},
    {
        "models",
        "datasets",
        "shards",
        "sources",
        "download",
        "debian",
        "fingerprint",
        "lock",
        "dvc",
        "origin",
        "processes",
        "server",
    },
    {"archives", "workers", "duplicates", "splitting", "audit"},
    {"image_folder", "blocks"},
    {"packing", "idx"},
    {"preparation", "audit_report", "feeding"},
    {"classifier", "embedding"},
    {"pretrained"},
    {"training", "prediction", "promotion", "recipes", "journal", "preview", "refs"},
    {
        "evaluation",
        "exporting",
        "plots",
        "live",
        "sanity",
        "store",
        "prediction_files",
        "lease",
    },
    {"report", "display", "tracking", "snapshots", "suspects", "sharing"},
    {"suspects_report"},
    {"registry", "runner"},
    {"publication"},
    {"syncing", "lookup"},
    {"lineage", "weights"},
    {"tracing", "rebuilding"},
    {"commands"},
    {"cli"},
]
TEMPLATES = {
    LIBRARY / "page.py": "page.html.j2",
    LIBRARY / "report.py": "report.html.j2",
    LIBRARY / "audit_report.py": "audit.html.j2",
    LIBRARY / "suspects_report.py": "suspects.html.j2",
}
ONLY_IN = {"click": {"cli", "commands"}, "mlflow": {"store", "tracking", "registry"}, "dvc": set()}


@cache
def imported(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def project_files(path: Path) -> set[Path]:
    """The project's own files that ``path`` imports directly."""
    candidates = {
        LIBRARY / f"{name.removeprefix('imageclf.').replace('.', '/')}.py"
        for name in imported(path)
    }
    candidates |= {ROOT / f"stages/{name}.py" for name in imported(path)}
    return {file for file in candidates if file.exists()}


def needed(path: Path) -> set[str]:
    """All project files that running ``path`` can execute, relative to the root."""
    found: set[Path] = set()
    waiting = {path}
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= project_files(file) - found
    templates = {file.parent / template for file, template in TEMPLATES.items() if file in found}
    return {str(file.relative_to(ROOT)) for file in found | templates}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_exactly_the_files_it_imports(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))}
    assert listed == needed(ROOT / f"stages/{stage}.py")


def test_every_tracked_parameter_is_listed_by_a_stage_and_runtime_by_none() -> None:
    listed = {param for stage in STAGES.values() for param in stage["params"]}
    assert listed == {key for key in known_keys() if not key.startswith("runtime.")}


def test_no_command_interpolates_a_parameter() -> None:
    assert {stage["cmd"] for stage in STAGES.values()} == {
        f"${{python}} stages/{name}.py" for name in STAGES
    }


def module(path: Path) -> str:
    """The name that LAYERS has for a file of the library: all commands are one."""
    return path.stem if path.parent == LIBRARY else path.parent.name


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("[a-z]*.py")), ids=lambda path: path.stem)
def test_imports_run_one_way(path: Path) -> None:
    layer = next(i for i, names in enumerate(LAYERS) if module(path) in names)
    allowed = set().union(*LAYERS[: layer + 1])
    assert {module(file) for file in project_files(path)} <= allowed
    packages = {name.split(".")[0] for name in imported(path)}
    assert not {name for name in packages & set(ONLY_IN) if module(path) not in ONLY_IN[name]}


@pytest.mark.parametrize("stage", ["fetch", "transform", "weights", "embed"])
def test_light_stages_load_neither_torch_nor_mlflow(stage: str) -> None:
    import subprocess

    script = (
        f"import sys, runpy; sys.argv = ['{stage}.py', '--help']\n"
        f"try: runpy.run_path('stages/{stage}.py', run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'mlflow', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "src:stages"},
    )
    assert result.stdout.endswith("[]\n")


if __name__ == "__main__":
    for name in STAGES:
        print(name, *sorted(needed(ROOT / f"stages/{name}.py")), sep="\n      - ")
