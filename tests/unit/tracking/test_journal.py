import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imageclf.tracking.journal import Journal, journals, project_root, trained_here
from imageclf.tracking.messages import End, Metrics, RunDescription

FINGERPRINT = "f" * 64
DESCRIPTION = RunDescription(
    FINGERPRINT, "digits mlp", "imageclf", {"seed": 1}, {"a": "1"}, {"device": "cpu"}, 1000
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
    resumed = replace(DESCRIPTION, started=5000, origin={"device": "cuda"})
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
    named = replace(DESCRIPTION, name="oboe digits", tags={"DVC_EXP_NAME": "oboe"}, origin={})
    journal.register(replace(named, started=7000), {"dvc.lock": "x"}, True, 8000)
    plain = replace(DESCRIPTION, params={"seed": 1, "evaluate.top_k": 5})
    record = journal.register(plain, {"dvc.lock": "y"}, False, 9000)
    assert record == journal.record
    assert (record.registered, record.restored) == (8000, False)
    assert record.description.name == "oboe digits"
    assert record.description.tags == {"a": "1", "DVC_EXP_NAME": "oboe"}
    assert record.description.origin == {"device": "cpu"}
    assert record.description.started == 1000
    assert record.description.params["evaluate.top_k"] == 5
    assert (journal.folder / "dvc.lock").read_text() == "y"


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
