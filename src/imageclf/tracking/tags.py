"""The tags of runs in MLflow: short hashes that its pages show, and hidden ones that code reads."""

import re
from collections.abc import Mapping

# MLflow's pages do not show what begins with "mlflow.".
HIDDEN = "mlflow.imageclf."
FORM = f"{HIDDEN}form"  # in which form a run's metrics and tags are
PRESENT_FORM = "2"
SNAPSHOT = f"{HIDDEN}snapshot"  # the state of the pipeline with which a run agrees
WHOLE = f"{HIDDEN}whole."  # before the name of a tag: its whole hash
GIVEN = f"{HIDDEN}given."  # before the name of a tag: the text that this project gave it last
NAME, NOTE = "mlflow.runName", "mlflow.note.content"
FINGERPRINT = "fingerprint"  # whole, since a run is searched for by it
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHORT = 12  # digits of a hash


def shortened(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags with short hashes, and the whole ones in tags that are hidden."""
    hashes = {
        name: value
        for name, value in tags.items()
        if name != FINGERPRINT and not name.startswith("mlflow.") and HASH.fullmatch(value)
    }
    short = {name: value[:SHORT] for name, value in hashes.items()}
    return {**tags, **short, **{f"{WHOLE}{name}": value for name, value in hashes.items()}}


def whole(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags with whole hashes; the inverse of ``shortened``."""
    return {name: tags.get(f"{WHOLE}{name}", value) for name, value in tags.items()}


def given(known: Mapping[str, str], tag: str, text: str) -> dict[str, str]:
    """The tags that give a run a text; none if a user has changed the last one that it was given.

    ``known`` are the tags that it has.
    """
    copy = f"{GIVEN}{tag}"
    return {tag: text, copy: text} if known.get(tag) in {None, known.get(copy)} else {}
