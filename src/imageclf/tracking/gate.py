"""The gate: whether a registered model takes the champion's place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from imageclf.files import read_csv, read_json
from imageclf.intervals import accuracy_told, percent
from imageclf.project.folder import AUDIT, METRICS, PARITY, PREDICTIONS

SIGNIFICANCE = 0.05  # p below which the candidate is better than the champion
LEAST_TOLD = 0.000001  # a p below it is told as smaller than that
MOST_LEAKED = 0.01  # share of the test images that may also be, pixel for pixel, in another split
# The files that the gate reads, in the workspace or among the artifacts of a run.
EVIDENCE = (METRICS, AUDIT, PREDICTIONS, PARITY)
OR_ANEW = "or remove the alias champion from its version in the MLflow UI to start anew"


@dataclass(frozen=True)
class Identity:
    """The fingerprint of a model, and the sha256 of its exported file and of its test split."""

    fingerprint: str
    sha256: str
    test_digest: str

    def tags(self) -> dict[str, str]:
        """As tags of a registered version."""
        return asdict(self)

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """From the tags of a version; empty strings where they are missing."""
        return cls(**{field.name: tags.get(field.name, "") for field in fields(cls)})


@dataclass(frozen=True)
class Champion:
    """The model to beat.

    Attributes:
        identity: with empty strings if its version was registered by other means.
        correct: whether it is right, for each image of the test split in order; None if its
            predictions are not available.
    """

    identity: Identity
    correct: tuple[bool, ...] | None


@dataclass(frozen=True)
class Candidate:
    """A model that may become the champion.

    Attributes:
        identity: of the model.
        correct: whether it is right, for each image of the test split in order.
        accuracy: on that split, 0..1.
        accuracy_low: lower end of the accuracy's confidence interval.
        majority_accuracy: of always guessing the commonest class of the train split.
        exports_agree: whether its exported file was shown to give the model's own probabilities.
        data_problems: reasons why figures on these data are not reliable.
    """

    identity: Identity
    correct: tuple[bool, ...]
    accuracy: float
    accuracy_low: float
    majority_accuracy: float
    exports_agree: bool
    data_problems: tuple[str, ...]

    @property
    def accuracy_told(self) -> str:
        """Its accuracy with the interval, which is wide where there are few test images."""
        return accuracy_told(sum(self.correct), len(self.correct))


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is promoted, and the reasons."""

    promoted: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'promoted' if self.promoted else 'refused'}: {'; '.join(self.reasons)}"


def read_candidate(folder: Path, identity: Identity) -> Candidate:
    """A model with its figures, from ``EVIDENCE`` below a folder; a UserError if one is missing."""
    figures, parity = read_json(folder / METRICS), read_json(folder / PARITY)
    return Candidate(
        identity=identity,
        correct=read_correct(folder / PREDICTIONS),
        accuracy=figures["accuracy"],
        accuracy_low=figures["accuracy_low"],
        majority_accuracy=figures["majority_accuracy"],
        exports_agree=parity["agree"] and identity.sha256 in parity.get("sha256", {}).values(),
        data_problems=audit_problems(read_json(folder / AUDIT)),
    )


def read_correct(predictions: Path) -> tuple[bool, ...]:
    """Whether each row of ``predictions.csv`` is right: one row per test image, in order.

    Raises:
        UserError: the file is missing, or is no such table.
    """
    rows = read_csv(predictions, ["actual", "predicted"])
    return tuple(actual == predicted for actual, predicted in rows)


def audit_problems(audit: Mapping[str, Any]) -> tuple[str, ...]:
    """Reasons in the audit of the data why figures on the test split are not reliable.

    The user sets the limits of the transform stage; this one holds for every champion.
    """
    images = audit["images"]["test"]
    return tuple(
        f"{leak['identical']} of the {images} test images also stand in the "
        f"{leak['splits'][0]} split"
        for leak in audit["leaks"]
        if leak["splits"][1] == "test" and leak["identical"] > MOST_LEAKED * images
    )


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's exact, one-sided test that the first of two models is better.

    McNemar (1947), Psychometrika 12, 153-157; Dietterich (1998), Neural Computation 10, 1895-1923,
    recommends it where each model was trained once. ``gained`` images are those that only the first
    model has right, ``lost`` images those that only the second has right.
    """
    from scipy.stats import binomtest

    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, alternative="greater").pvalue)


def decide(candidate: Candidate, champion: Champion | None) -> Decision:
    """Decide by the candidate's data, exports and accuracy, and by the champion if there is one.

    The champion stays the champion when it is registered again.
    """
    better, comparison = _compare(candidate, champion)
    against = _against_it_alone(candidate) + [comparison] * (not better)
    return Decision(not against, tuple(against) or (comparison, candidate.accuracy_told))


def _against_it_alone(candidate: Candidate) -> list[str]:
    reasons = [f"its data are not clean: {problem}" for problem in candidate.data_problems]
    if not candidate.exports_agree:
        reasons.append("its exported file was not proved to agree with the model")
    if not candidate.accuracy_low > candidate.majority_accuracy:
        reasons.append(
            f"not clearly better than always guessing the commonest class, which is right on "
            f"{percent(candidate.majority_accuracy)}: {candidate.accuracy_told}"
        )
    return reasons


def _compare(candidate: Candidate, champion: Champion | None) -> tuple[bool, str]:
    """Whether the candidate is better than the champion beyond what chance explains, and why."""
    if champion is None:
        return True, "there was no champion"
    mine, its = candidate.identity, champion.identity
    if (mine.fingerprint, mine.sha256) == (its.fingerprint, its.sha256):
        return True, "it is the champion's own model"
    if champion.correct is None:
        return False, f"the champion's predictions are not available: register it again, {OR_ANEW}"
    if mine.test_digest != its.test_digest or len(candidate.correct) != len(champion.correct):
        return False, f"the champion was tested on other data: test it on these, {OR_ANEW}"
    pairs = [*zip(candidate.correct, champion.correct, strict=True)]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(gained, lost)
    better = p < SIGNIFICANCE
    verdict = "better" if better else "not clearly better" if gained > lost else "no better"
    chance = "" if better else ", which may be chance"
    counts = f"where they differ, right {gained:,} to {lost:,} times"
    told = f"{chance} ({p_told(p)})" if gained > lost else ""
    return better, f"{verdict} than the champion: {counts}{told}"


def p_told(p: float) -> str:
    """A p-value without an exponent, such as ``p = 0.013``."""
    if p < LEAST_TOLD:
        return f"p < {Decimal(str(LEAST_TOLD)):f}"
    return f"p = {Decimal(f'{p:.2g}'):f}"
