from dataclasses import replace
from pathlib import Path

import pytest

from imageclf.project.git import Commit
from imageclf.team import remote_refs as refs
from imageclf.team.sharing import JOURNALS, came_from_elsewhere, fetch_journals, push_journals
from imageclf.tracking.journal import Journal, journals
from imageclf.tracking.messages import End, Metrics, RunDescription
from imageclf.tracking.provenance import Provenance

FINGERPRINT = "f" * 64
DESCRIPTION = RunDescription(
    FINGERPRINT,
    "digits mlp",
    "imageclf",
    {"seed": 1},
    {},
    Provenance(device="cuda", hardware="H"),
    1000,
)


def train(end: str = "FINISHED") -> Journal:
    journal = Journal(FINGERPRINT)
    with journal.training(DESCRIPTION, 0):
        journal.say(Metrics(1, {"train_loss": 0.5, "seconds": 2.0}, 1001))
        journal.say(End(end, 1002))
    return journal


def test_a_journal_reaches_another_clone_once(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = train()
    journal.patch.write_bytes(b"\0 not text\r\n")
    assert (push_journals(), push_journals()) == (1, 0)
    monkeypatch.chdir(clones[1])
    assert (fetch_journals(print), fetch_journals(print)) == (1, 0)
    assert Journal(FINGERPRINT).files() == journal.files()
    assert Journal(FINGERPRINT).end() == End("FINISHED", 1002)


def test_what_came_from_elsewhere_is_not_handed_back(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    push_journals()
    monkeypatch.chdir(clones[1])
    fetch_journals(print)
    Journal(FINGERPRINT).register(DESCRIPTION, {}, restored=True, now=2000)
    assert push_journals() == 0


def test_what_was_trained_here_stays_and_what_was_only_registered_does_not(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    push_journals()
    monkeypatch.chdir(clones[1])
    elsewhere = replace(DESCRIPTION, origin=Provenance(Commit("a" * 40)))
    Journal(FINGERPRINT).register(elsewhere, {}, restored=True, now=2000)
    assert push_journals() == 0
    assert fetch_journals(print) == 1
    record = Journal(FINGERPRINT).record
    assert record
    assert record.description.origin.hardware == "H"
    monkeypatch.chdir(clones[0])
    assert fetch_journals(print) == 0


def test_a_training_that_goes_on_is_left_alone(clones: list[Path]) -> None:
    with Journal(FINGERPRINT).training(DESCRIPTION, 0):
        assert push_journals() == 0
    assert push_journals() == 1


def test_a_training_that_is_resumed_is_handed_on_again(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train("KILLED")
    push_journals()
    monkeypatch.chdir(clones[1])
    fetch_journals(print)
    monkeypatch.chdir(clones[0])
    train()
    assert push_journals() == 1
    assert list(refs.listed(f"{JOURNALS}/*")) == [f"{JOURNALS}/{FINGERPRINT}"]
    monkeypatch.chdir(clones[1])
    assert fetch_journals(print) == 1
    assert Journal(FINGERPRINT).end() == End("FINISHED", 1002)


def test_a_bad_journal_of_another_clone_is_skipped_and_named(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    push_journals()
    bad = refs.commit({"origin.json": b"{}"})
    for name in ("e" * 64, "--output=x"):
        refs.change(f"{JOURNALS}/{name}", "", bad)
    monkeypatch.chdir(clones[1])
    said: list[str] = []
    assert fetch_journals(said.append) == 1
    assert [line.split(":")[0] for line in said] == ["skipped", "skipped"]
    assert "'--output=x' is no fingerprint" in said[0]
    assert "the training eeeeeeee: origin.json: 'description': Field required" in said[1]
    assert [each.fingerprint for each in journals()] == [FINGERPRINT]
    assert came_from_elsewhere(FINGERPRINT)
    assert not came_from_elsewhere("e" * 64)
    assert push_journals() == 0
