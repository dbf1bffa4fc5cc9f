"""The house rules that code cannot state: who imports whom, and what each stage depends on."""

import ast
import itertools
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from helpers.observers import GUARDS, OBSERVERS
from helpers.params import ROOT, changed
from imageclf.files import read_yaml
from imageclf.params import known_keys
from imageclf.project.folder import IGNORED, files_below

LIBRARY = ROOT / "src/imageclf"
TEMPLATE = re.compile(r"\w+\.html\.j2")
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# From the ground up: a wing imports only wings below it.
FLOORS = [
    "ground",
    "system",
    "drawing",
    "project",
    "data",
    "network",
    "inference",
    "sources",
    "preparation",
    "training",
    "tracking",
    "evaluation",
    "team",
    "lineage",
    "commands",
    "cli",
]
GROUND = {"files", "intervals", "network_names", "params", "recipes", "sections", "text"}
SURPLUS = 2  # files that a stage does not import, at most, in a folder that it depends on
# Packages, and the only wings or modules that may import them.
DOORS = {
    "click": {"cli", "commands"},
    "mlflow": {"tracking/connection", "tracking/runs", "tracking/registry"},
    "dvc": set(),
    "torch": {
        "network",
        "training",
        "data/batches",
        "inference/backbone",
        "inference/calibration",
        "inference/export",
        "inference/novelty",
        "evaluation/calibration",
        "evaluation/cost",
        "evaluation/metrics",
        "evaluation/suspects",
    },
}


@cache
def imported(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top, inside a function or for its types."""
    return imports_of(ast.parse(path.read_text()))


@cache
def imported_when_run(path: Path) -> frozenset[str]:
    """Those but for what it imports for its types alone."""

    class WithoutTypes(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    return imports_of(WithoutTypes().visit(ast.parse(path.read_text())))


def imports_of(tree: ast.AST) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def project_files(path: Path) -> frozenset[Path]:
    """The project's own files that ``path`` imports directly, and the templates that it names."""
    places = [name.removeprefix("imageclf.").replace(".", "/") for name in imported(path)]
    found = {LIBRARY / f"{place}.py" for place in places}
    found |= {ROOT / f"stages/{place}.py" for place in places}
    found |= {path.parent / name for name in TEMPLATE.findall(path.read_text())}
    found |= {*path.parent.glob("*.html.j2")} if path.name == "html.py" else set()
    return frozenset(file for file in found if file.exists())


def needed(path: Path, observers: Iterable[str] = ()) -> set[str]:
    """All project files that running ``path`` can execute, relative to the root.

    What is imported by way of observers alone is none of them.
    """
    found = {LIBRARY / f"{name}.py" for name in observers}
    watching, waiting = set(found), {path}
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= project_files(file) - found if file.suffix == ".py" else frozenset()
    return {str(file.relative_to(ROOT)) for file in found - watching}


@cache
def needed_by(stage: str) -> set[str]:
    """The files that decide what a stage writes."""
    watching = GUARDS | OBSERVERS if stage == "train" else GUARDS
    return needed(ROOT / f"stages/{stage}.py", watching)


def covered(dep: str) -> set[str]:
    """The files of a dep that hold code: a package's own file holds none."""
    if not (ROOT / dep).is_dir():
        return {dep}
    return {f"{dep}/{name}" for name in files_below(ROOT / dep) if "__init__" not in name}


def source_deps(stage: str) -> list[str]:
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]


def lacking(stage: str, deps: Iterable[str]) -> set[str]:
    """The files that decide what a stage writes, and that no dep covers."""
    return needed_by(stage).difference(*map(covered, deps))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_every_file_that_it_imports(stage: str) -> None:
    assert not lacking(stage, source_deps(stage)), f"missing among the deps of {stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_little_else(stage: str) -> None:
    for dep in source_deps(stage):
        surplus = covered(dep) - needed_by(stage)
        assert len(surplus) <= (SURPLUS if (ROOT / dep).is_dir() else 0), f"{stage}: {dep}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_dep_of_a_stage_can_be_left_out(stage: str) -> None:
    deps = source_deps(stage)
    for dep in deps:
        assert lacking(stage, [other for other in deps if other != dep]), f"{stage}: {dep}"


def test_what_observes_a_training_is_no_dep_of_it() -> None:
    observers = {f"src/imageclf/{name}.py" for name in OBSERVERS}
    assert observers <= needed(ROOT / "stages/train.py")
    assert observers.isdisjoint(set().union(*map(covered, source_deps("train"))))


def test_dvc_and_the_fingerprint_leave_out_the_same_files() -> None:
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    patterns = [line.removeprefix("\\") for line in lines if not line.startswith(("# ", "/"))]
    assert tuple(patterns) == IGNORED


def parameters(stage: str) -> set[str]:
    """The dotted paths of what a stage lists, alone or by section."""
    listed = {f"{name}." for name in STAGES[stage]["params"]}
    assert all(any(f"{key}.".startswith(name) for key in known_keys()) for name in listed)
    return {key for key in known_keys() if f"{key}.".startswith(tuple(listed))}


def test_every_tracked_parameter_is_listed_by_a_stage_and_runtime_by_none() -> None:
    listed = {key for stage in STAGES for key in parameters(stage)}
    assert listed == {key for key in known_keys() if not key.startswith("runtime.")}


def test_what_weights_are_asked_for_decides_nothing_after_them() -> None:
    assert [stage for stage in STAGES if "model.weights" in parameters(stage)] == ["weights"]


def test_no_command_interpolates_a_parameter() -> None:
    assert {stage["cmd"] for stage in STAGES.values()} == {
        f"${{python}} stages/{name}.py" for name in STAGES
    }


def wing(path: Path) -> str:
    """The name that FLOORS has for a file of the library."""
    place = path.relative_to(LIBRARY).parts[0]
    name = place.removesuffix(".py")
    return "ground" if name in GROUND else name


MODULES = sorted(LIBRARY.rglob("[a-z]*.py"))


def names(paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(LIBRARY).with_suffix("")) for path in paths]


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_wing_imports_only_wings_below_it(path: Path) -> None:
    below = FLOORS[: FLOORS.index(wing(path)) + 1]
    files = {file for file in project_files(path) if file.is_relative_to(LIBRARY)}
    assert {wing(file) for file in files} <= set(below)


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_package_comes_in_by_its_own_doors(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported_when_run(path)}
    place = str(path.relative_to(LIBRARY).with_suffix(""))
    for package in packages & set(DOORS):
        assert {place, wing(path)} & DOORS[package], f"{place} imports {package}"


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("__init__.py")), ids=str)
def test_a_package_file_holds_its_docstring_and_nothing_else(path: Path) -> None:
    (only,) = ast.parse(path.read_text()).body
    assert isinstance(only, ast.Expr)


def test_no_test_module_imports_another() -> None:
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    modules = {path.stem for path in paths}
    for path in paths:
        parts = {part for name in imported(path) for part in name.split(".")}
        assert not parts & modules, path


def test_the_unit_tests_have_a_folder_for_each_wing() -> None:
    folders = {path.name for path in (ROOT / "tests/unit").iterdir() if any(path.glob("*.py"))}
    assert folders <= {*FLOORS, "stages"}


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_module_has_400_lines_and_a_function_50_at_most(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert not {name for name, count in lines.items() if count > 50}


def test_no_modules_import_each_other_in_a_circle() -> None:
    waiting = {path: project_files(path) & set(MODULES) - {path} for path in MODULES}
    while free := {path for path, files in waiting.items() if not files & waiting.keys()}:
        waiting = {path: files for path, files in waiting.items() if path not in free}
    assert not names(waiting)


def test_a_block_is_named_by_every_module_that_can_change_its_bytes() -> None:
    from imageclf.preparation import blocks

    no_byte = {
        "files",
        "sections",
        "text",
        "data/prepared",
        "data/shapes",
        "system/machine",
        "system/progress",
    }
    named = {name.removeprefix("imageclf.").replace(".", "/") for name in blocks.CODE}
    used = {ROOT / path for path in needed(LIBRARY / "preparation/blocks.py")}
    assert set(names(used)) == named | no_byte


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *itertools.product(["fetch", "transform", "embed"], ["mlp", "densenet121"]),
        ("weights", "mlp"),  # torchvision tells which images densenet121 wants
    ],
)
def test_light_stages_load_neither_torch_nor_mlflow(stage: str, name: str, tmp_path: Path) -> None:
    """Two end where there are no images, two write that there is nothing to do."""
    import subprocess

    images = {"data__name": "image_folder", "data__source": "missing", "transform__image_size": 32}
    (tmp_path / "params.yaml").write_text(json.dumps(changed(model__name=name, **images)))
    heavy = "{'torch', 'torchvision', 'timm', 'mlflow', 'sklearn'}"
    script = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit: print(sorted({heavy} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, ROOT / f"stages/{stage}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'stages'}"},
    )
    assert result.stdout.endswith("[]\n")
    ended = {"fetch": "missing does not exist", "transform": "source.json is missing"}
    assert ended.get(stage, "") in result.stderr
    assert stage in ended or not result.stderr


if __name__ == "__main__":
    for name in STAGES:
        print(name, *sorted(needed_by(name)), sep="\n      ")
