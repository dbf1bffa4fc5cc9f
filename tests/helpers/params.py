"""Parameters with some values changed."""

from pathlib import Path
from typing import Any

from imageclf.files import read_yaml
from imageclf.params import Params, check_params

ROOT = Path(__file__).parents[2]


def changed(**changes: Any) -> dict[str, Any]:
    """The values of params.yaml with some set by dotted path (``__`` for the dot)."""
    values: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    for path, value in changes.items():
        *sections, leaf = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[leaf] = value
    return values


def make_params(**changes: Any) -> Params:
    """Checked parameters that differ from params.yaml as ``changed`` says."""
    return check_params(changed(**changes), "test")
