"""Whatever a dvc.lock holds: it is read, or refused in one line."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.watch import YAML_WORDS, Watch, examples, little_memory, mutated
from imageclf.files import UserError
from imageclf.project.lock import (
    bare_pipeline,
    lacks,
    locked_stages,
    outs_read_otherwise,
    recorded_outs,
    recorded_sources,
)

EXAMPLES = 800
MD5, FOLDER = "a1" * 16, f"{'b2' * 16}.dir"
WHOLE = f"""schema: '2.0'
stages:
  fetch:
    cmd: PYTHONPATH=src:stages PATH="$DVC_ROOT/.venv/bin:$PATH" python stages/fetch.py
    deps:
    - path: stages/fetch.py
      hash: md5
      md5: {MD5}
      size: 1871
    params:
      params.yaml:
        data.name: digits
        data.splits: {{}}
    outs:
    - path: data/raw
      hash: md5
      md5: {FOLDER}
      size: 1024
      nfiles: 3
  train:
    cmd: python stages/train.py
    deps:
    - path: data/raw
      hash: md5
      md5: {FOLDER}
    outs:
    - path: models/classifier
      hash: md5
      md5: {FOLDER}
""".encode()
WORDS = [
    *YAML_WORDS,
    b"<<: ",
    b"../../x",
    b"/etc/passwd",
    b"--output=x",
    b".git/config",
    b"!!timestamp x",
]


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def check(text: str, watch: Watch, folder: Path) -> bool:
    """Whether it is read, by everything that reads one."""
    with watch.nothing_starts(folder / "nowhere"), little_memory():
        try:
            outs = recorded_outs(text)
            sources = recorded_sources(text)
            stages = locked_stages(text)
            outs_read_otherwise(text, sources)
            pipeline = json.loads(bare_pipeline(text))["stages"]
        except UserError:
            return False
    for out in outs:
        parts = PurePosixPath(out.path).parts
        assert parts
        assert parts[0] != "/"
        assert not {"..", ".git", ".dvc"} & {*parts}
        lacks({out.path}, out.path)
    assert not any(name.startswith("-") for name in [*stages, *pipeline])
    return True


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mutated_locks_are_read_or_refused(watch: Watch, tmp_path: Path) -> None:
    assert check(WHOLE.decode(), watch, tmp_path)
    read = {True: 0, False: 0}

    @examples(EXAMPLES)
    @given(mutated([WHOLE], WORDS))
    def attack(content: bytes) -> None:
        read[check(content.decode(errors="replace"), watch, tmp_path)] += 1

    attack()
    assert min(read.values()) > EXAMPLES / 50, read


NAMES = st.sampled_from(
    ["stages", "fetch", "deps", "outs", "params", "path", "md5", "cmd", "-x", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_locks_of_any_values_are_read_or_refused(watch: Watch, tmp_path: Path) -> None:
    @examples(EXAMPLES)
    @given(st.dictionaries(NAMES, VALUES, max_size=3), VALUES, VALUES)
    def attack(stages: dict[str, Any], out: Any, whole: Any) -> None:
        files = [{"path": "a", "md5": MD5}, out]
        check(json.dumps({"stages": {"fetch": {"outs": files}} | stages}), watch, tmp_path)
        check(json.dumps(whole), watch, tmp_path)

    attack()
