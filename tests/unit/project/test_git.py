"""No word from elsewhere becomes an option of git or of DVC."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.params import ROOT
from imageclf.project.git import commit_in

CALLS = {"git", "git_if_any", "_lines", "dvc", "run_dvc", "_dvc", "dvc_in_terminal"}
# What a function that hands them on has from its caller, who is held likewise.
HANDED_ON = {"*arguments", "project"}
ENDS = {"--", "--end-of-options"}
# The next word belongs to the option, whatever it is.
TAKES_A_WORD = {"-C", "-p", "-m"}
# Parsed: of the type ``Commit``.
PARSED = {"commit"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node


def loose_words(call: ast.Call, tuples: set[str]) -> Iterator[str]:
    """The words of a call that are no constants and stand where git reads options."""
    before = ""
    for word in call.args:
        text = word.value if isinstance(word, ast.Constant) else None
        if text in ENDS:
            return
        name = ast.unparse(word)
        fixed = isinstance(word, ast.JoinedStr) and isinstance(word.values[0], ast.Constant)
        known = text is not None or fixed or name.isupper() or name.lstrip("*") in tuples
        if not known and name not in PARSED | HANDED_ON and before not in TAKES_A_WORD:
            yield name
        before = text or ""


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_words_from_elsewhere_stand_after_the_end_of_the_options(path: Path) -> None:
    tree = ast.parse(path.read_text())
    tuples = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in calls(tree):
        assert list(loose_words(call, tuples)) == [], ast.unparse(call)


@pytest.mark.parametrize("text", ["--output=x", "HEAD", "", "a" * 41, "g" * 40, "a" * 40 + "\n"])
def test_only_a_full_name_is_a_commit(text: str) -> None:
    assert commit_in(text) is None
    assert commit_in("a" * 40) == "a" * 40
