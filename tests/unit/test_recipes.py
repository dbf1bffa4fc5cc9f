import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.params import ROOT, changed, params_text
from imageclf.files import UserError, read_yaml
from imageclf.params import flatten, known_keys, load_params, tracked_values
from imageclf.recipes import Change, Recipe, find_recipe, load_recipes, use_recipe

FOLDER = ROOT / "recipes"
RECIPES = [find_recipe(recipe.name, FOLDER) for recipe in load_recipes(FOLDER)]
by_name = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A params.yaml of the defaults."""
    path = tmp_path / "params.yaml"
    path.write_text(params_text())
    return path


def recipe(**values: Any) -> Recipe:
    return Recipe("mine", "A recipe of my own.", values)


@by_name
def test_every_recipe_sets_all_that_decides_the_model(recipe: Recipe) -> None:
    """So that it starts from the defaults, whatever params.yaml held before."""
    sections = ("seed", "data.", "transform.", "augment.", "model.", "train.", "register.name")
    expected = [key for key in known_keys() if key.startswith(sections)]
    if recipe.values["data"]["name"] == "image_folder":
        expected.remove("data.source")  # these are the user's
        expected.remove("data.splits")
    assert list(flatten(recipe.values)) == expected


@by_name
def test_every_recipe_fits_the_schema_and_keeps_every_comment(recipe: Recipe, params: Path) -> None:
    use_recipe(recipe, params)
    assert flatten(recipe.values).items() <= tracked_values(load_params(params)).items()
    pairs = zip(params_text().splitlines(), params.read_text().splitlines(), strict=True)
    for before, after in pairs:
        assert before.partition(" # ")[1:] == after.partition(" # ")[1:]
        assert before.find(" # ") == after.find(" # ")
        assert before.partition(":")[0] == after.partition(":")[0]


@by_name
def test_every_header_has_title_command_and_expectation(recipe: Recipe) -> None:
    lines = (ROOT / f"recipes/{recipe.name}.yaml").read_text().splitlines()
    assert lines[0] == f"# {recipe.title}"
    assert recipe.title.endswith(".")
    header = lines[: lines.index("")]
    assert f"#   imageclf use {recipe.name} && dvc repro" in header
    assert any(line.startswith("# Expected: ") for line in header)


def test_fashion_part4_is_the_defaults(params: Path) -> None:
    assert use_recipe(find_recipe("fashion_part4", ROOT / "recipes"), params) == []
    assert params.read_text() == params_text()


def test_from_any_recipe_to_the_defaults_and_back_byte_for_byte(params: Path) -> None:
    for other in RECIPES:
        use_recipe(other, params)
        use_recipe(find_recipe("fashion_part4", ROOT / "recipes"), params)
        assert params.read_text() == params_text()


def test_what_changed_is_told_and_the_rest_stays(params: Path) -> None:
    params.write_text(params.read_text().replace("top_k: 3", "top_k: 2 "))
    mine = recipe(train={"epochs": 3, "optimizer": "adam"}, model={"hidden": [5]}, seed=9)
    assert use_recipe(mine, params) == [
        Change("train.epochs", 20, 3),
        Change("model.hidden", [256, 64], [5]),
        Change("seed", 1, 9),
    ]
    before, after = flatten(changed()), flatten(read_yaml(params))
    assert {key: after[key] for key in after if after[key] != before[key]} == {
        "train.epochs": 3,
        "model.hidden": [5],
        "seed": 9,
        "evaluate.top_k": 2,
    }
    assert "  hidden: [5]              # mlp: width of each hidden layer\n" in params.read_text()


def test_comments_and_quotes_of_the_user_stay(params: Path) -> None:
    text = params.read_text().replace("train:\n", "# my own note\ntrain:   # mine\n")
    text = text.replace("name: fashion-mnist", 'name: "my name" ')
    params.write_text(text)
    use_recipe(recipe(train={"epochs": 3}), params)
    assert params.read_text() == text.replace("epochs: 20 ", "epochs: 3  ")


def test_a_parameter_that_was_deleted_is_set_again(params: Path) -> None:
    params.write_text(params.read_text().replace("  epochs: 20 ", "  # "))
    assert use_recipe(recipe(train={"epochs": 3}), params) == [Change("train.epochs", None, 3)]
    assert load_params(params).train.epochs == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epoch": 3}}, "with recipe mine: train.epoch is not .* train.epochs?"),
        ({"train": {"epochs": 0}}, "with recipe mine: train.epochs: .* greater than 0, not 0"),
        ({"train": {"loss": "cross_entropy"}}, "needs model.output: logits"),
        ({"train": 3}, "with recipe mine: train: "),
    ],
)
def test_a_result_that_does_not_fit_is_refused_and_nothing_is_written(
    params: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        use_recipe(recipe(**values), params)
    assert params.read_text() == params_text()
    assert list(params.parent.iterdir()) == [params]


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "not valid YAML"), ("", "params.yaml with recipe mine")]
)
def test_a_broken_params_yaml_is_one_line(params: Path, text: str, message: str) -> None:
    params.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        use_recipe(recipe(seed=2), params)
    assert "\n" not in str(caught.value)
    assert params.read_text() == text


def test_a_missing_params_yaml_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run this in the folder of the project"):
        use_recipe(recipe(seed=2), tmp_path / "params.yaml")


def test_recipes_are_listed_by_name_with_their_titles(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("# The second.\n# More.\nseed: 2\n")
    (tmp_path / "one.yaml").write_text("# The first.\nseed: 1\n")
    assert load_recipes(tmp_path) == [
        Recipe("one", "The first.", {"seed": 1}),
        Recipe("two", "The second.", {"seed": 2}),
    ]


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no recipe fashion4; did you mean fashion_part4?"):
        find_recipe("fashion4", ROOT / "recipes")


def test_no_recipes_and_empty_recipes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run this in the folder of the project"):
        load_recipes(tmp_path)
    (tmp_path / "empty.yaml").write_text("# Nothing.\n")
    with pytest.raises(UserError, match="empty.yaml sets no parameters"):
        load_recipes(tmp_path)


def test_the_splits_of_the_users_folders_stay_with_them(params: Path) -> None:
    text = params.read_text()
    params.write_text(text.replace("splits: {}", "splits: {train: learn}"))
    mine = next(recipe for recipe in RECIPES if recipe.name == "my_photos")
    use_recipe(mine, params)
    assert load_params(params).data.splits == {"train": "learn"}
    other = next(recipe for recipe in RECIPES if recipe.name == "digits_mlp")
    assert Change("data.splits", {"train": "learn"}, {}) in use_recipe(other, params)
    assert "splits: {}  " in params.read_text()


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (
            "hidden:                  # mlp: width of each hidden layer\n  - 16\n  - 4   # four\n",
            "hidden: [5]              # mlp: width of each hidden layer\n",
        ),
        ("hidden:\n  - 16\n\n  # mine\n", "hidden: [5]\n\n  # mine\n"),
        ("hidden:\n    # mine\n    - 16\n", "hidden: [5]\n"),
        ("hidden: [16,\n    4]  # mine\n", "hidden: [5] # mine\n"),
    ],
)
def test_a_list_of_several_lines_becomes_one_and_the_rest_stays(
    params: Path, block: str, line: str
) -> None:
    """As an editor or `dvc exp run -S 'model.hidden=[16,4]'` writes it."""
    whole = params_text()
    old = next(each for each in whole.splitlines(keepends=True) if "  hidden: " in each)
    params.write_text(whole.replace(old, f"  {block}"))
    use_recipe(recipe(model={"hidden": [5]}), params)
    assert params.read_text() == whole.replace(old, f"  {line}")


def test_what_dvc_sets_is_set_back(params: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    apply_overrides(str(params), ["model.hidden=[16,4]"])
    assert "  - 16\n" in params.read_text()
    use_recipe(find_recipe("digits_mlp", FOLDER), params)
    use_recipe(find_recipe("fashion_part4", FOLDER), params)
    assert params.read_text().replace("''", '""') == params_text()


def test_a_params_yaml_that_is_a_link_stays_one(params: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept/params.yaml"
    kept.parent.mkdir()
    params.rename(kept)
    params.symlink_to(kept)
    use_recipe(recipe(seed=9), params)
    assert params.is_symlink()
    assert read_yaml(kept)["seed"] == 9


def test_hidden_files_are_no_recipes(tmp_path: Path) -> None:
    """Files that macOS and editors keep beside others."""
    (tmp_path / "a.yaml").write_text("# Käse\nseed: 1\n", "utf-8")
    (tmp_path / "._a.yaml").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        \xff\xfe")
    (tmp_path / ".#a.yaml").symlink_to("me@host.123:1")
    assert [(each.name, each.title) for each in load_recipes(tmp_path)] == [("a", "Käse")]


def test_text_is_utf_8_whatever_the_terminal_has(params: Path) -> None:
    """Without it Python would read the comments of params.yaml and of recipes as ASCII here."""
    (params.parent / "recipes").mkdir()
    (params.parent / "recipes/fashion_part4.yaml").write_text(
        "# Käse\nseed: 9\ndata: {name: mnist}\n"
    )
    params.write_text(f"# Käse\n{params.read_text()}")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = [sys.executable, "-c", "from imageclf.cli import main; main()", "use"]
    for arguments in ([], ["fashion_part4"]):
        done = subprocess.run(
            [*program, *arguments],
            cwd=params.parent,
            env={**os.environ, **locale},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"seed ")
    assert params.read_text().startswith("# Käse\n")
    assert read_yaml(params)["seed"] == 9
