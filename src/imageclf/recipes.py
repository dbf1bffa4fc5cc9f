"""Recipes: ready-made settings that `imageclf use` merges into params.yaml."""

import difflib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imageclf.files import UserError, parse_yaml, read_yaml, write_text, yaml_errors_told
from imageclf.params import check_params

RECIPES = Path("recipes")
# Lists every parameter that a recipe may set; the others list what they do differently.
BASE = "fashion_part4"


@dataclass(frozen=True)
class Recipe:
    """A recipe file: its name, the first line of its header, and the parameters it sets."""

    name: str
    title: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A parameter that a recipe changed, by its dotted path; ``before`` is None if unset."""

    key: str
    before: Any
    after: Any


def load_recipes(folder: Path = RECIPES) -> list[Recipe]:
    """The recipes of a folder, by name; a UserError if there are none or one is no mapping."""
    paths = sorted(folder.glob("*.yaml"))
    # A name with a dot in front is a file that an editor or macOS keeps beside another one.
    recipes = [_load(path) for path in paths if not path.name.startswith(".")]
    if not recipes:
        raise UserError(f"no recipes in {folder}/: run this in the folder of the project")
    return recipes


def find_recipe(name: str, folder: Path = RECIPES) -> Recipe:
    """The recipe of that name, completed from ``BASE``.

    A recipe for the user's images does not change ``data.source`` and ``data.splits``, unless it
    sets them itself.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    recipes = {recipe.name: recipe for recipe in load_recipes(folder)}
    if name not in recipes:
        nearest = difflib.get_close_matches(name, recipes, n=1, cutoff=0)[0]
        raise UserError(f"there is no recipe {name}; did you mean {nearest}?")
    recipe = recipes[name]
    values = _over(recipes[BASE].values, recipe.values)
    if values["data"]["name"] == "image_folder":
        for key in ("source", "splits"):
            if not values["data"][key]:
                del values["data"][key]
    return replace(recipe, values=values)


def use_recipe(recipe: Recipe, path: Path = Path("params.yaml")) -> list[Change]:
    """Set the parameters of the recipe; comments, order and layout stay.

    Returns what changed, in the order of the recipe. If nothing changes, nothing is written.

    Raises:
        UserError: params.yaml is missing or is not YAML, or the result does not fit the schema.
    """
    from ruamel.yaml import YAML

    read_yaml(path)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    text = io.StringIO()
    with yaml_errors_told(str(path)):
        params = yaml.load(path)
        changes = _merge(params, recipe.values) if isinstance(params, dict) else []
        yaml.dump(params, text)
    source = f"{path} with recipe {recipe.name}"
    check_params(parse_yaml(text.getvalue(), source), source)
    if changes:
        write_text(path.resolve(), text.getvalue())  # a link stays one
    return changes


def _load(path: Path) -> Recipe:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} sets no parameters")
    title = path.read_text("utf-8").splitlines()[0].removeprefix("#").strip()
    return Recipe(path.stem, title, values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``values``, section by section; the order is that of ``base``."""
    merged = base | values
    for key, value in base.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merged[key] = _over(value, values[key])
    return merged


def _merge(params: dict[str, Any], values: dict[str, Any], prefix: str = "") -> list[Change]:
    changes = []
    for key, value in values.items():
        if value and isinstance(value, dict) and isinstance(params.get(key), dict):
            changes += _merge(params[key], value, f"{prefix}{key}.")
        elif params.get(key) != value:
            changes.append(Change(f"{prefix}{key}", params.get(key), value))
            _keep_comments(params, key)
            params[key] = _styled(value)
    return changes


def _keep_comments(section: Any, key: str) -> None:
    """Prepare to replace a list or mapping of several lines by one line.

    The comment beside the key stays, and so do the lines between the value and the next key, which
    ruamel keeps in the comment of the last item.
    """
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    last, value = None, section.get(key)
    if not _is_block(value):
        return
    beside = (section.ca.items.get(key) or [None] * 3)[2]
    while _is_block(value) and value:
        end, place = (len(value) - 1, 0) if isinstance(value, list) else (list(value)[-1], 2)
        last, value = (value.ca.items.get(end) or [None] * 3)[place], value[end]
    behind = last.value.partition("\n")[2] if last else ""
    mark = beside.start_mark if beside else CommentMark(0)
    comment = CommentToken((beside.value if beside else "\n") + behind, mark)
    section.ca.items[key] = [None, None, comment, None]


def _is_block(value: Any) -> bool:
    """Whether it is a list or mapping of several lines."""
    from ruamel.yaml.comments import CommentedBase

    return isinstance(value, CommentedBase) and not value.fa.flow_style()


def _styled(value: Any) -> Any:
    """A value as params.yaml writes it: lists on one line, an empty string as ``""``."""
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if value == "":
        return DoubleQuotedScalarString(value)
    if not isinstance(value, list):
        return value
    sequence = CommentedSeq(value)
    sequence.fa.set_flow_style()
    return sequence
