"""The parameters that tests start from, whatever this checkout's params.yaml holds."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imageclf.files import read_yaml
from imageclf.params import Params, check_params
from imageclf.recipes import BASE, Recipe, use_recipe

ROOT = Path(__file__).parents[2]
# What no recipe sets.
REST: dict[str, dict[str, Any]] = {
    "evaluate": {"top_k": 3, "calibrate": "temperature", "pictures": 24},
    "export": {"tolerance": 0.0001},
    "register": {"experiment": "imageclf"},
    "runtime": {"device": "auto", "threads": "auto", "processes": "auto", "checkpoint_minutes": 5},
}


def changed(**changes: Any) -> dict[str, Any]:
    """The values of the recipe fashion_part4, some set by dotted path (``__`` for the dot)."""
    values: dict[str, Any] = read_yaml(ROOT / f"recipes/{BASE}.yaml")
    for section, rest in REST.items():
        values[section] = values.get(section, {}) | rest
    for path, value in changes.items():
        *sections, leaf = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[leaf] = value
    return values


def make_params(**changes: Any) -> Params:
    """Checked parameters that differ from fashion_part4 as ``changed`` says."""
    return check_params(changed(**changes), "test")


@cache
def params_text() -> str:
    """A whole params.yaml with its comments, of the values that ``changed`` begins with."""
    with TemporaryDirectory() as folder:
        path = Path(shutil.copy(ROOT / "params.yaml", folder))
        use_recipe(Recipe(BASE, "", changed()), path)
        return path.read_text()
