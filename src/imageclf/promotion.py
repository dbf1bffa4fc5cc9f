"""The gate: whether a newly registered model takes the champion's place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Scored:
    """A model and what it reached.

    Attributes:
        fingerprint: sha256 over all that determined the training.
        sha256: of its exported file.
        test_digest: sha256 of the test split it was measured on.
        accuracy: on that split, 0..1.
    """

    fingerprint: str
    sha256: str
    test_digest: str
    accuracy: float

    def tags(self) -> dict[str, str]:
        """As tags of a registered version."""
        return {
            "fingerprint": self.fingerprint,
            "sha256": self.sha256,
            "test_digest": self.test_digest,
            "accuracy": repr(self.accuracy),
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """From the tags of a version; one that was registered by other means tells nothing."""
        return cls(
            fingerprint=tags.get("fingerprint", ""),
            sha256=tags.get("sha256", ""),
            test_digest=tags.get("test_digest", ""),
            accuracy=float(tags.get("accuracy", "nan")),
        )


@dataclass(frozen=True)
class Candidate(Scored):
    """A model that asks to become the champion.

    Attributes:
        accuracy_low: lower end of the accuracy's confidence interval.
        majority_accuracy: of always guessing the commonest class of the train split.
        exports_agree: whether the exported files give the model's own probabilities.
    """

    accuracy_low: float
    majority_accuracy: float
    exports_agree: bool


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is promoted, and why, one reason a line."""

    promoted: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'promoted' if self.promoted else 'refused'}: {'; '.join(self.reasons)}"


def decide(candidate: Candidate, champion: Scored | None) -> Decision:
    """Hold the candidate against chance, its own exports, and the champion if there is one.

    The champion itself stays the champion, however often it is registered.
    """
    if champion and _same_model(candidate, champion):
        return Decision(True, ("it is the champion already",))
    against = (*_against_it_alone(candidate), *_against_champion(candidate, champion))
    if against:
        return Decision(False, against)
    if champion is None:
        return Decision(True, ("there was no champion",))
    return Decision(
        True, (f"accuracy {candidate.accuracy:.4f} beats the champion's {champion.accuracy:.4f}",)
    )


def _same_model(first: Scored, second: Scored) -> bool:
    return (first.fingerprint, first.sha256) == (second.fingerprint, second.sha256)


def _against_it_alone(candidate: Candidate) -> list[str]:
    reasons = []
    if not candidate.exports_agree:
        reasons.append("its exported files disagree with the model")
    if not candidate.accuracy_low > candidate.majority_accuracy:
        reasons.append(
            f"it is not clearly better than always guessing the commonest class: its accuracy may "
            f"be as low as {candidate.accuracy_low:.4f}, guessing gives "
            f"{candidate.majority_accuracy:.4f}"
        )
    return reasons


def _against_champion(candidate: Candidate, champion: Scored | None) -> list[str]:
    if champion is None:
        return []
    if candidate.test_digest != champion.test_digest:
        return [
            "the champion was tested on other data, so the two cannot be compared; to start anew, "
            "take the alias champion from its version in the MLflow UI and register again"
        ]
    if not candidate.accuracy > champion.accuracy:
        return [
            f"accuracy {candidate.accuracy:.4f} is not better than the champion's "
            f"{champion.accuracy:.4f}"
        ]
    return []
