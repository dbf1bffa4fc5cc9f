import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from imageclf.files import UserError
from imageclf.intervals import percent
from imageclf.tracking.gate import (
    Candidate,
    Champion,
    Identity,
    audit_problems,
    decide,
    mcnemar,
    read_candidate,
    read_correct,
)

MODEL = Identity(fingerprint="f" * 64, sha256="a" * 64, test_digest="d" * 64)
OTHER = Identity(fingerprint="e" * 64, sha256="b" * 64, test_digest="d" * 64)


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[Candidate, Champion]:
    """Two models on the same test images, so many right for each of both, one or none of them."""
    mine = [True] * (both + gained) + [False] * (lost + neither)
    its = [True] * both + [False] * gained + [True] * lost + [False] * neither
    candidate = Candidate(
        identity=MODEL,
        correct=tuple(mine),
        accuracy=sum(mine) / len(mine),
        accuracy_low=sum(mine) / len(mine) - 0.05,
        majority_accuracy=0.1,
        exports_agree=True,
        data_problems=(),
    )
    return candidate, Champion(OTHER, tuple(its))


CANDIDATE, CHAMPION = paired(both=80, gained=12, lost=2, neither=6)


def test_the_first_good_model_is_promoted() -> None:
    decision = decide(CANDIDATE, None)
    assert decision.promoted
    assert str(decision) == (
        "promoted: there was no champion; "
        "92.0 % of 100 test images (82.1 to 96.6 % with 99 % confidence)"
    )


def test_a_better_model_is_promoted() -> None:
    decision = decide(CANDIDATE, CHAMPION)
    assert decision.promoted
    assert str(decision) == (
        "promoted: better than the champion: where they differ, right 12 to 2 times (p = 0.0065); "
        "92.0 % of 100 test images (82.1 to 96.6 % with 99 % confidence)"
    )


@pytest.mark.parametrize(
    ("gained", "lost", "reason"),
    [
        (31, 29, "not clearly better{} 31 to 29 times, which may be chance (p = 0.45)"),
        (4, 0, "not clearly better{} 4 to 0 times, which may be chance (p = 0.062)"),
        (0, 0, "no better{} 0 to 0 times"),
        (7, 7, "no better{} 7 to 7 times"),
        (2, 12, "no better{} 2 to 12 times"),
    ],
)
def test_an_equal_or_worse_model_is_refused(gained: int, lost: int, reason: str) -> None:
    decision = decide(*paired(9000, gained, lost, 900))
    assert not decision.promoted
    assert decision.reasons == (reason.format(" than the champion: where they differ, right"),)


@pytest.mark.parametrize(
    ("gained", "lost", "words"),
    [
        (486, 354, "right 486 to 354 times (p = 0.000003)"),
        (1200, 300, "right 1,200 to 300 times (p < 0.000001)"),
    ],
)
def test_a_probability_has_no_exponent(gained: int, lost: int, words: str) -> None:
    assert words in decide(*paired(8000, gained, lost, 900)).reasons[0]


# Agresti, Categorical Data Analysis, 2nd edition, table 10.1, and the sign test's common table.
@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(5, 0, 0.03125), (9, 1, 0.0107), (15, 5, 0.0207), (150, 86, 1.857e-5), (1, 9, 0.9990)],
)
def test_mcnemar_gives_the_values_of_tables(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, rel=5e-3)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (31, 29), (70, 40), (2, 12)])
def test_mcnemar_is_the_tail_of_the_binomial(gained: int, lost: int) -> None:
    images = gained + lost
    ways = sum(math.comb(images, k) for k in range(gained, images + 1))
    assert mcnemar(gained, lost) == pytest.approx(float(Fraction(ways, 2**images)))


def test_the_champion_registered_again_stays_champion() -> None:
    its = Champion(MODEL, CANDIDATE.correct)
    assert decide(CANDIDATE, its).promoted
    tested_anew = replace(CANDIDATE, identity=replace(MODEL, test_digest="c" * 64))
    assert decide(tested_anew, its).promoted


@pytest.mark.parametrize("change", [{"sha256": "b" * 64}, {"fingerprint": "e" * 64}])
def test_the_same_fingerprint_or_file_alone_is_another_model(change: dict[str, str]) -> None:
    assert not decide(CANDIDATE, Champion(replace(MODEL, **change), CANDIDATE.correct)).promoted


def test_a_champion_tested_on_other_data_cannot_be_beaten() -> None:
    elsewhere = replace(CHAMPION, identity=replace(OTHER, test_digest="c" * 64))
    decision = decide(CANDIDATE, elsewhere)
    assert not decision.promoted
    assert "tested on other data" in decision.reasons[0]


def test_predictions_of_other_images_are_of_other_data() -> None:
    decision = decide(CANDIDATE, replace(CHAMPION, correct=(True,) * 99))
    assert not decision.promoted
    assert "tested on other data" in decision.reasons[0]


@pytest.mark.parametrize("identity", [OTHER, Identity("", "", "")])
def test_a_champion_without_predictions_cannot_be_beaten(identity: Identity) -> None:
    decision = decide(CANDIDATE, Champion(identity, None))
    assert not decision.promoted
    assert "predictions are not available: register it again" in decision.reasons[0]


@pytest.mark.parametrize("majority", [0.87, 0.88])
def test_a_model_that_may_be_no_better_than_guessing_is_refused(majority: float) -> None:
    decision = decide(replace(CANDIDATE, majority_accuracy=majority), None)
    assert not decision.promoted
    (reason,) = decision.reasons
    assert reason == (
        "not clearly better than always guessing the commonest class, which is right on "
        f"{percent(majority)}: 92.0 % of 100 test images (82.1 to 96.6 % with 99 % confidence)"
    )


def test_exports_that_disagree_are_refused() -> None:
    decision = decide(replace(CANDIDATE, exports_agree=False), None)
    assert decision.reasons == ("its exported file was not proved to agree with the model",)
    assert not decision.promoted


def test_every_reason_is_told() -> None:
    bad = replace(CANDIDATE, exports_agree=False, accuracy_low=0.05, data_problems=("a", "b"))
    reasons = decide(bad, CHAMPION).reasons
    assert len(reasons) == 4
    assert reasons[0] == "its data are not clean: a"
    assert len(decide(bad, replace(CHAMPION, correct=None)).reasons) == 5


@pytest.mark.parametrize("field", ["accuracy_low", "majority_accuracy"])
def test_a_figure_that_is_no_number_promotes_nothing(field: str) -> None:
    assert not decide(replace(CANDIDATE, **{field: float("nan")}), CHAMPION).promoted


def leak(first: str, second: str, equal: int, near: int = 0) -> dict[str, Any]:
    return {"splits": [first, second], "images": equal + near, "identical": equal}


def test_only_a_leak_of_equal_images_into_test_above_the_limit_is_a_problem() -> None:
    audit = {
        "images": {"train": 800, "val": 100, "test": 300},
        "leaks": [leak("train", "val", 90), leak("train", "test", 3, 50), leak("val", "test", 4)],
    }
    assert audit_problems(audit) == ("4 of the 300 test images also stand in the val split",)


def write_evidence(folder: Path, parity: dict[str, Any]) -> None:
    values = {
        "reports/metrics.json": {"accuracy": 0.5, "accuracy_low": 0.4, "majority_accuracy": 0.3},
        "reports/data.json": {"images": {"test": 2}, "leaks": []},
        "models/exported/parity.json": parity,
    }
    for name, value in values.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    (folder / "reports/evaluation").mkdir()
    predictions = 'actual,predicted,loss\n"a,b",c,1\nNA,NA,0\n'
    (folder / "reports/evaluation/predictions.csv").write_text(predictions)


@pytest.mark.parametrize(
    ("parity", "agree"),
    [
        ({"agree": True, "sha256": {"model.onnx": MODEL.sha256}}, True),
        ({"agree": True, "sha256": {"model.onnx": "0" * 64}}, False),
        ({"agree": False, "sha256": {"model.onnx": MODEL.sha256}}, False),
        ({"agree": True}, False),  # written before files were named by their digest
    ],
)
def test_the_evidence_is_read_from_the_files(
    tmp_path: Path, parity: dict[str, Any], agree: bool
) -> None:
    write_evidence(tmp_path, parity)
    assert read_candidate(tmp_path, MODEL) == Candidate(
        identity=MODEL,
        correct=(False, True),
        accuracy=0.5,
        accuracy_low=0.4,
        majority_accuracy=0.3,
        exports_agree=agree,
        data_problems=(),
    )


def test_missing_evidence_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reports/metrics\.json is missing"):
        read_candidate(tmp_path, MODEL)


def test_predictions_are_read_image_by_image(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("actual,predicted\nCoat,Coat\nCoat,Shirt\nShirt,Shirt\n")
    assert read_correct(path) == (True, False, True)


def test_a_version_of_other_means_tells_nothing() -> None:
    assert Identity.from_tags({"accuracy": "0.9"}) == Identity("", "", "")
    assert Identity.from_tags(MODEL.tags()) == MODEL
