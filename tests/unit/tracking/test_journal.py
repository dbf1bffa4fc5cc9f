import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imageclf.files import UserError
from imageclf.tracking.journal import (
    Journal,
    JournalError,
    journals,
    project_root,
    trained_here,
    unreadable_journals,
)
from imageclf.tracking.messages import End, Metrics, RunDescription
from imageclf.tracking.provenance import Provenance

FINGERPRINT = "f" * 64
DESCRIPTION = RunDescription(
    FINGERPRINT, "digits mlp", "imageclf", {"seed": 1}, {"a": "1"}, Provenance(device="cpu"), 1000
)


def point(epoch: int) -> Metrics:
    return Metrics(epoch, {"train_loss": 1 / epoch, "seconds": 0.5}, 1000 + epoch)


@pytest.fixture
def journal(project: Path) -> Journal:
    return Journal(FINGERPRINT)


def test_what_was_said_is_kept(journal: Journal) -> None:
    assert journal.record is journal.end() is None
    with journal.training(DESCRIPTION, 0):
        journal.say(point(1))
        journal.say(point(2))
        journal.say(End("FINISHED", 3000))
    assert journal.messages() == [point(1), point(2), End("FINISHED", 3000)]
    assert journal.end() == End("FINISHED", 3000)
    assert journal.record
    assert journal.record.description == DESCRIPTION
    assert [each.fingerprint for each in journals()] == [FINGERPRINT]


def test_a_resumed_training_keeps_the_epochs_of_its_checkpoint(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        for epoch in (1, 2, 3):
            journal.say(point(epoch))
    resumed = replace(DESCRIPTION, started=5000, origin=Provenance(device="cuda"))
    with journal.training(resumed, 2):
        journal.say(replace(point(3), time=6000))
    assert journal.messages() == [point(1), point(2), replace(point(3), time=6000)]
    assert journal.record
    assert journal.record.description == replace(resumed, started=1000)


def test_a_training_from_the_start_forgets_the_one_before(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        journal.say(point(1))
        journal.say(End("FAILED", 2000))
    with journal.training(replace(DESCRIPTION, started=5000), 0):
        assert journal.messages() == []
    assert journal.record
    assert journal.record.description.started == 5000


def test_who_died_in_silence_was_killed_when_it_spoke_last(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        pass
    assert journal.end() == End("KILLED", 1000)
    journal.say(point(1))
    assert journal.end() == End("KILLED", 1001)


def test_a_line_that_was_torn_does_not_count(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        journal.say(point(1))
    with (journal.folder / "points.jsonl").open("a") as file:
        file.write('{"step": 2, "val')
    assert journal.messages() == [point(1)]
    with journal.training(DESCRIPTION, 1):
        journal.say(point(2))
    assert journal.messages() == [point(1), point(2)]


def test_a_training_is_seen_while_it_lives(journal: Journal) -> None:
    assert not journal.is_training()
    with journal.training(DESCRIPTION, 0):
        assert Journal(FINGERPRINT).is_training()
        assert journal.end() is None
        with Journal(FINGERPRINT).training(DESCRIPTION, 0):  # the same model in another folder
            pass
        assert Journal(FINGERPRINT).is_training()
    assert not journal.is_training()


def test_a_registration_keeps_where_it_was_trained_and_when_it_was_first(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        pass
    named = replace(
        DESCRIPTION, name="oboe digits", tags={"DVC_EXP_NAME": "oboe"}, origin=Provenance()
    )
    journal.register(replace(named, started=7000), {"dvc.lock": "x"}, True, 8000)
    plain = replace(DESCRIPTION, params={"seed": 1, "evaluate.top_k": 5})
    record = journal.register(plain, {"dvc.lock": "y"}, False, 9000)
    assert record == journal.record
    assert (record.registered, record.restored) == (8000, False)
    assert record.description.name == "oboe digits"
    assert record.description.tags == {"a": "1", "DVC_EXP_NAME": "oboe"}
    assert record.description.origin == Provenance(device="cpu")
    assert record.description.started == 1000
    assert record.description.params["evaluate.top_k"] == 5
    assert (journal.folder / "dvc.lock").read_text() == "y"


def test_no_secret_of_params_is_kept(journal: Journal) -> None:
    lock = "a: 1  # password: hunter2x\n"  # DVC writes no comments
    state = {"params.yaml": "a: 1\n# password: hunter2x\n", "dvc.lock": lock}
    journal.register(DESCRIPTION, state, restored=False, now=1000)
    assert journal.files(["params.yaml"]) == {"params.yaml": b"a: 1\n\n"}
    with pytest.raises(UserError, match="params.yaml, line 1: this looks like a secret"):
        journal.register(DESCRIPTION, {"params.yaml": "password: hunter2x"}, False, 2000)
    assert journal.files(["params.yaml"]) == {"params.yaml": b"a: 1\n\n"}


def test_an_epoch_costs_less_than_a_millisecond(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        started = time.process_time()
        for epoch in range(1, 201):
            journal.say(point(epoch))
        assert (time.process_time() - started) / 200 < 0.001


def test_it_lies_in_the_root_also_for_temporary_folders(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert project_root() == project
    assert Journal(FINGERPRINT).folder == project / ".imageclf/trained" / FINGERPRINT
    Path(".imageclf").mkdir()
    Path(".imageclf/latest").write_text(FINGERPRINT)
    assert trained_here(FINGERPRINT)
    monkeypatch.chdir(project)
    assert not trained_here(FINGERPRINT)


def test_a_loss_that_is_no_number_survives(journal: Journal) -> None:
    with journal.training(DESCRIPTION, 0):
        journal.say(Metrics(1, {"val_loss": float("nan")}, 1))
    (kept,) = journal.messages()
    assert isinstance(kept, Metrics)
    assert kept.values["val_loss"] != kept.values["val_loss"]
    assert json.loads((journal.folder / "origin.json").read_text())["registered"] is None


def origin_json(**changes: object) -> bytes:
    told = {
        "description": {
            "fingerprint": "e" * 64,
            "name": "x",
            "experiment": "imageclf",
            "params": {},
            "tags": {},
            "origin": {"device": "cpu"},
            "started": 1,
        },
        "registered": None,
        "restored": False,
    }
    told["description"] |= changes  # type: ignore[operator]
    return json.dumps(told).encode()


BAD = {
    "empty": {"origin.json": b"{}"},
    "no object": {"origin.json": b"[1]"},
    "torn": {"origin.json": origin_json()[:40]},
    "of a newer version": {"origin.json": origin_json(colour="red")},
    "of a newer origin": {"origin.json": origin_json(origin={"colour": "red"})},
    "of another type": {"origin.json": origin_json(tags=5)},
    "a nested tag": {"origin.json": origin_json(origin={"device": {}})},
    "of another training": {"origin.json": origin_json(fingerprint="d" * 64)},
    "tagged as another": {"origin.json": origin_json(tags={"fingerprint": "d" * 64})},
    "before 1970": {"origin.json": origin_json(started=-1)},
    "after 9999": {"origin.json": origin_json(started=10**18)},
    "no UTF-8": {"origin.json": b"\xff\xfe"},
    "points": {"points.jsonl": b'{"step": 1}\n'},
    "points of text": {"points.jsonl": b"\xff\n"},
    "an unknown end": {"points.jsonl": b'{"status": "WON", "time": 1}\n'},
    "a name that MLflow refuses": {
        "points.jsonl": b'{"step": 1, "values": {"a;b": 1}, "time": 1}\n'
    },
    "a lock of bytes": {"dvc.lock": b"\xff"},
}


def write_bad(kind: str) -> Path:
    """A journal in which one file is bad."""
    folder = Path(".imageclf/trained") / ("e" * 64)
    folder.mkdir(parents=True)
    for name, content in ({"origin.json": origin_json()} | BAD[kind]).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_journal_is_named_and_hides_no_other(journal: Journal, kind: str) -> None:
    with journal.training(DESCRIPTION, 0):
        journal.say(point(1))
    folder = write_bad(kind)
    assert [each.fingerprint for each in journals()] == [FINGERPRINT]
    (reason,) = unreadable_journals()
    assert reason.startswith("the training eeeeeeee: ")
    assert reason.isprintable()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(JournalError):
        Journal("e" * 64).take(files)


def test_a_good_journal_of_that_form_is_read(project: Path) -> None:
    Journal("e" * 64).take({"origin.json": origin_json()})
    assert not unreadable_journals()
    record = Journal("e" * 64).record
    assert record
    assert record.description.origin == Provenance(device="cpu")


def test_what_the_other_clone_lacks_does_not_stay(journal: Journal) -> None:
    journal.folder.mkdir(parents=True)
    journal.patch.write_text("of an earlier training")
    journal.take({"origin.json": origin_json().replace(b"e" * 64, b"f" * 64)})
    assert not journal.patch.exists()


@pytest.mark.parametrize("name", ["", "..", "f" * 63, "F" * 64, "--output=x", "f" * 64 + "\n"])
def test_a_journal_is_named_by_a_fingerprint_alone(project: Path, name: str) -> None:
    with pytest.raises(JournalError, match="is no fingerprint"):
        Journal(name)
