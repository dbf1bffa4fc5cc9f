from dataclasses import replace

import pytest

from imageclf.promotion import Candidate, Scored, decide

CANDIDATE = Candidate(
    fingerprint="f" * 64,
    sha256="a" * 64,
    test_digest="d" * 64,
    accuracy=0.9,
    accuracy_low=0.86,
    majority_accuracy=0.1,
    exports_agree=True,
)
CHAMPION = Scored(fingerprint="e" * 64, sha256="b" * 64, test_digest="d" * 64, accuracy=0.8)


def test_the_first_good_model_is_promoted() -> None:
    decision = decide(CANDIDATE, None)
    assert decision.promoted
    assert str(decision) == "promoted: there was no champion"


def test_a_better_model_is_promoted() -> None:
    decision = decide(CANDIDATE, CHAMPION)
    assert decision.promoted
    assert str(decision) == "promoted: accuracy 0.9000 beats the champion's 0.8000"


@pytest.mark.parametrize("accuracy", [0.9, 0.95])
def test_an_equal_or_worse_model_is_refused(accuracy: float) -> None:
    decision = decide(CANDIDATE, replace(CHAMPION, accuracy=accuracy))
    assert not decision.promoted
    assert decision.reasons == (
        f"accuracy 0.9000 is not better than the champion's {accuracy:.4f}",
    )


def test_the_champion_registered_again_stays_champion() -> None:
    assert decide(CANDIDATE, CANDIDATE).promoted
    measured_anew = replace(CANDIDATE, accuracy=0.85, test_digest="c" * 64)
    assert decide(measured_anew, CANDIDATE).promoted


@pytest.mark.parametrize("change", [{"sha256": "b" * 64}, {"fingerprint": "e" * 64}])
def test_the_same_fingerprint_or_file_alone_is_another_model(change: dict[str, str]) -> None:
    assert not decide(CANDIDATE, replace(CANDIDATE, **change)).promoted


def test_a_champion_tested_on_other_data_cannot_be_beaten() -> None:
    decision = decide(CANDIDATE, replace(CHAMPION, test_digest="c" * 64, accuracy=0.1))
    assert not decision.promoted
    assert "tested on other data" in decision.reasons[0]


@pytest.mark.parametrize("majority", [0.86, 0.88])
def test_a_model_that_may_be_no_better_than_guessing_is_refused(majority: float) -> None:
    decision = decide(replace(CANDIDATE, majority_accuracy=majority), None)
    assert not decision.promoted
    assert f"as low as 0.8600, guessing gives {majority:.4f}" in decision.reasons[0]


def test_exports_that_disagree_are_refused() -> None:
    decision = decide(replace(CANDIDATE, exports_agree=False), None)
    assert not decision.promoted
    assert "exported files disagree" in decision.reasons[0]


def test_every_reason_is_told() -> None:
    bad = replace(CANDIDATE, exports_agree=False, accuracy=0.1, accuracy_low=0.05)
    assert len(decide(bad, CHAMPION).reasons) == 3


@pytest.mark.parametrize("field", ["accuracy", "accuracy_low", "majority_accuracy"])
def test_a_figure_that_is_no_number_promotes_nothing(field: str) -> None:
    assert not decide(replace(CANDIDATE, **{field: float("nan")}), CHAMPION).promoted
