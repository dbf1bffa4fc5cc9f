"""Whatever the files of a journal hold: they are read, or refused in one line and passed over."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.descriptions import FINGERPRINT, described, epoch
from helpers.watch import Watch, examples, little_memory, mutated
from imageclf.files import UserError
from imageclf.project.git import Commit
from imageclf.tracking.journal import FILES, JOURNAL, Journal, journals, unreadable_journals
from imageclf.tracking.messages import End, encode
from imageclf.tracking.provenance import Provenance

EXAMPLES = 3000
OTHER = "e" * 64
WORDS = [
    *(b"null", b"true", b"1e999", b"-1", b"NaN", b"[]", b"{}", b'""', b"9" * 400, b"\xff", b"\n"),
    *(b'"--output=/tmp/x"', b'"../../x"', b"\\ud800", b"[" * 2000, b'"params":', b'"step":'),
]


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def whole(folder: Path) -> dict[str, bytes]:
    """The files of a journal as a registered training leaves them."""
    journal = Journal(FINGERPRINT, folder)
    origin = Provenance(device="cpu", commit=Commit("a" * 40))
    description = replace(described(), origin=origin, started=1000)
    with journal.training(description, 0):
        for message in (epoch(1), epoch(2), End("FINISHED", 5000)):
            journal.say(message)
    state = {"params.yaml": "seed: 1\n", "dvc.yaml": "stages: {}\n", "dvc.lock": "schema: '2.0'\n"}
    journal.register(description, state, restored=False, now=6000)
    journal.patch.write_bytes(b"diff --git a/params.yaml b/params.yaml\n")
    return journal.files()


def check(project: Path, files: dict[str, bytes], watch: Watch) -> None:
    """Lay out a journal of another clone beside one of our own, and read both as commands do."""
    folder = project / JOURNAL / OTHER
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = {path: path.stat().st_mtime_ns for path in (project / JOURNAL / FINGERPRINT).iterdir()}
    with watch.nothing_starts(project), little_memory():
        read, faults = journals(), unreadable_journals()
        names = [each.fingerprint for each in read]
        assert FINGERPRINT in names
        assert (OTHER in names) != bool(faults)
        assert all(fault.isprintable() for fault in faults)
        if OTHER in names:
            other = Journal(OTHER)
            assert other.record
            other.messages()
            other.end()
            assert other.record.description.origin.tags() is not None
        with suppress(UserError):
            Journal(OTHER).take(files)
    ours = (project / JOURNAL / FINGERPRINT).iterdir()
    assert {path: path.stat().st_mtime_ns for path in ours if path.name != "lock"}.items() <= (
        before.items()
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mutated_journals_are_read_or_passed_over(project: Path, watch: Watch) -> None:
    files = whole(project)
    theirs = {
        name: content.replace(FINGERPRINT.encode(), OTHER.encode())
        for name, content in files.items()
    }
    check(project, theirs, watch)
    assert len(journals()) == 2
    read = {True: 0, False: 0}

    @examples(EXAMPLES)
    @given(st.sampled_from(FILES), st.data())
    def attack(name: str, data: st.DataObject) -> None:
        content = data.draw(mutated([theirs[name]], WORDS))
        check(project, theirs | {name: content}, watch)
        read[len(journals()) == 2] += 1

    attack()
    assert min(read.values()) > EXAMPLES / 50, read


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_records_and_points_of_any_values(project: Path, watch: Watch) -> None:
    whole(project)
    record: dict[str, Any] = json.loads(
        (project / JOURNAL / FINGERPRINT / "origin.json").read_text()
    )
    record["description"]["fingerprint"] = record["description"]["tags"]["fingerprint"] = OTHER
    keys = [*record, *record["description"], "git_commit", "started"]
    point = json.loads(encode(epoch(1)))

    @examples(EXAMPLES)
    @given(
        st.dictionaries(st.sampled_from(keys), VALUES, max_size=2),
        st.dictionaries(st.sampled_from([*point, "status", "file"]), VALUES, max_size=2),
    )
    def attack(change: dict[str, Any], said: dict[str, Any]) -> None:
        inner = {key: value for key, value in change.items() if key in record["description"]}
        outer = {key: value for key, value in change.items() if key not in inner}
        changed = record | outer
        if isinstance(changed["description"], dict):
            changed["description"] = changed["description"] | inner
        files = {
            "origin.json": json.dumps(changed).encode(),
            "points.jsonl": f"{json.dumps(point | said)}\n".encode(),
        }
        check(project, files, watch)

    attack()
