"""What each stage made, in one line, from the files that it wrote."""

from collections.abc import Callable
from typing import Any

from imageclf.files import read_json
from imageclf.intervals import percent
from imageclf.project.folder import (
    AUDIT,
    CLASSIFIER,
    EXPORTED,
    HISTORY,
    METRICS,
    PARITY,
    PREPARED,
    PRETRAINED,
    RAW,
)

SPLITS = ("train", "val", "test")


def result_of(stage: str) -> str | None:
    """The result of a stage that has run; None if there was nothing to do for it."""
    return RESULTS[stage]() if stage in RESULTS else ""


def data_title() -> str:
    """The name of the data set."""
    source = read_json(RAW / "source.json")
    return str(source.get("title") or f"{source['images']:,} images of your own")


def image_counts() -> str:
    """The images of each split."""
    counts = read_json(AUDIT)["images"]
    return ", ".join(f"{counts[split]:,} {split}" for split in SPLITS) + " images"


def epoch_told() -> str:
    """The epoch whose weights the classifier has."""
    from imageclf.training.history import read_history

    epoch, history = _model()["epoch"], read_history(HISTORY)
    accuracy = percent(history[epoch - 1]["val_accuracy"]) if epoch else "not known"
    return f"weights of epoch {epoch} of {len(history)}: val accuracy {accuracy}"


def network_told() -> str:
    """The network: its name, the layers that a parameter lists, and how its weights began."""
    description = _model()
    model = description["model"]
    layers = model["hidden"] if model["name"] == "mlp" else model["head"]
    hidden = f", hidden layers of {' and '.join(map(str, layers))}" if layers else ""
    title = description["weights"].get("title")
    return f"{model['name']}{hidden}{f', begun with {title}' if title else ''}"


def registered_told(with_accuracy: bool = True) -> str:
    """The model's version in the registry, and what the gate said of it."""
    from imageclf.tracking.journal import last_registration

    if (done := last_registration(_model()["fingerprint"])) is None:
        return ""
    promoted, reasons = done["promoted"], done["reasons"]
    champion = "the champion" if promoted else "not the champion"
    # The accuracy is the last reason of a promotion.
    why = "; ".join(reasons if with_accuracy or not promoted else reasons[:1])
    return f"{done['name']} version {done['version']}, {champion}: {why}"


def _model() -> Any:
    from imageclf.network.description import MODEL_JSON

    return read_json(CLASSIFIER / MODEL_JSON)


def _fetch() -> str:
    source = read_json(RAW / "source.json")
    size = sum(file["bytes"] for file in source["files"].values())
    return f"{data_title()}, {size / 1e6:,.1f} MB"


def _weights() -> str | None:
    record = read_json(PRETRAINED / "weights.json")
    return record and str(record["origin"]["title"])


def _transform() -> str:
    from imageclf.data.prepared import load_split

    height, width = load_split(PREPARED, "train").images.shape[1:3]
    return f"{image_counts()} of {height} x {width}"


def _embed() -> str | None:
    from imageclf.params import load_params

    return "features of every image" if load_params().trains_on_features else None


def _evaluate() -> str:
    return f"test accuracy {percent(read_json(METRICS)['accuracy'])}"


def _export() -> str:
    names = read_json(PARITY)["largest_difference"]
    size = sum((EXPORTED / name).stat().st_size for name in names)
    return f"{' and '.join(names)}, {size / 1e6:.1f} MB, equal to the model"


RESULTS: dict[str, Callable[[], str | None]] = {
    "fetch": _fetch,
    "weights": _weights,
    "transform": _transform,
    "embed": _embed,
    "train": epoch_told,
    "evaluate": _evaluate,
    "export": _export,
    "register": registered_told,
}
