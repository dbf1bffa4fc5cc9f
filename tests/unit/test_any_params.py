"""Whatever params.yaml holds: it is taken, or refused in one line and left as it is."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from helpers.params import ROOT, changed, params_text
from helpers.watch import YAML_WORDS, Watch, examples, little_memory, mutated
from imageclf.files import UserError
from imageclf.params import check_params, known_keys, load_params, tracked_values
from imageclf.recipes import find_recipe, use_recipe

EXAMPLES = 800
RECIPES = [find_recipe(name, ROOT / "recipes") for name in ("digits_mlp", "cats_dogs_part8")]
WORDS = [
    *YAML_WORDS,
    b"<<: *a",
    b"2001-01-01T99:99:99Z",
    b"0x",
    b".nan",
    b"1_0",
    b"{" * 300,
    b">+2\n",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"\r",
    b"# ",
    b"'",
    b'"\\ud800"',
    b"!!merge x",
    b"*.cat",
    b"(a+)+$",
    b"models:/..@x",
    b"https://u:p@h/#sha256=",
    b"~nobody/x",
    b"http://[::1/x",
    b"\n",
    b"\n\n",
    b"\n  ",
    b"  ",
    b"hidden:\n  - 3\n",
    b"mlp",
    b"resnet",
    b"1",
    b"0",
    b"-1",
    b"true",
]


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def check(content: bytes, watch: Watch, path: Path, recipe: Any) -> bool:
    """Whether the file is taken; then a recipe can be put into it."""
    path.write_bytes(content)
    with watch.nothing_starts(path.parent), little_memory():
        taken = _taken(path)
        try:
            use_recipe(recipe, path)
        except UserError:
            assert path.read_bytes() == content
        else:
            params = load_params(path)
            wanted = tracked_values(params)
            for section, values in recipe.values.items():
                told = wanted[section] if section == "seed" else {}
                if isinstance(values, dict):
                    told = {key: wanted[f"{section}.{key}"] for key in values}
                assert told == values
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return taken


def _taken(path: Path) -> bool:
    try:
        load_params(path)
    except UserError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_mutated_file_is_taken_or_refused(watch: Watch, tmp_path: Path) -> None:
    whole = params_text().encode()
    bare = re.sub(rb" *#.*", b"", whole)  # whose every byte is one of a key or a value
    taken = {True: 0, False: 0}

    @examples(EXAMPLES)
    @given(mutated([whole, bare], WORDS), st.sampled_from(RECIPES))
    def attack(content: bytes, recipe: Any) -> None:
        taken[check(content, watch, tmp_path / "params.yaml", recipe)] += 1

    attack()
    assert min(taken.values()) > EXAMPLES / 200, taken


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["none", "imagenet", "cnn", "auto", "models:/a/1", "**", "(", "\ud800", "\0"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.just("train"), inner)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_any_values_are_taken_or_refused(watch: Watch) -> None:
    taken = {True: 0, False: 0}

    @examples(8 * EXAMPLES)
    @given(st.dictionaries(st.sampled_from(known_keys()), VALUES, min_size=1, max_size=2))
    def attack(change: dict[str, Any]) -> None:
        values = changed(**{key.replace(".", "__"): value for key, value in change.items()})
        with watch.nothing_starts(), little_memory():
            try:
                params = check_params(values, "params.yaml")
            except UserError:
                taken[False] += 1
            else:
                taken[True] += 1
                assert {**tracked_values(params)}

    attack()
    assert min(taken.values()) > EXAMPLES / 200, taken


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_file_of_any_layout_keeps_its_values(watch: Watch, tmp_path: Path) -> None:
    """As another program, such as `dvc exp run -S`, writes it."""
    path = tmp_path / "params.yaml"

    @examples(EXAMPLES)
    @given(
        st.booleans(),
        st.integers(2, 6),
        st.integers(20, 90),
        st.lists(st.integers(1, 99), max_size=30),
        st.sampled_from(RECIPES),
    )
    def attack(flow: bool, indent: int, width: int, hidden: list[int], recipe: Any) -> None:
        yaml, text = YAML(typ="safe", pure=True), io.StringIO()
        yaml.default_flow_style, yaml.indent, yaml.width = flow, indent, width
        yaml.dump(changed(model__hidden=hidden), text)
        assert check(text.getvalue().encode(), watch, path, recipe)

    attack()
