"""The project's folder: where its root is, and where the pipeline keeps what it makes."""

import os
from fnmatch import fnmatch
from pathlib import Path

PIPELINE = DVC_YAML, PARAMS, LOCK = ("dvc.yaml", "params.yaml", "dvc.lock")

RAW, PREPARED, FEATURES = Path("data/raw"), Path("data/prepared"), Path("data/features")
PRETRAINED, CLASSIFIER = Path("models/pretrained"), Path("models/classifier")
EXPORTED = Path("models/exported")
ONNX, PARITY = EXPORTED / "model.onnx", EXPORTED / "parity.json"
REPORTS = Path("reports")
AUDIT, AUDIT_PAGE = REPORTS / "data.json", REPORTS / "data.html"
HISTORY, METRICS = REPORTS / "history.csv", REPORTS / "metrics.json"
EVALUATION = REPORTS / "evaluation"
PREDICTIONS = EVALUATION / "predictions.csv"
# What DVC leaves out of every folder, by .dvcignore: what Python and editors write there.
IGNORED = ("__pycache__", ".*", "*~", "#*#")


def project_root() -> Path:
    """The project's folder, also from within DVC's temporary experiment folders."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).absolute()


def files_below(folder: Path) -> dict[str, Path]:
    """Every file that DVC sees in a folder, by its path from there, in the order of these."""
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {name: found[name] for name in sorted(found) if not _is_ignored(name)}


def _is_ignored(name: str) -> bool:
    return any(fnmatch(part, pattern) for part in name.split("/") for pattern in IGNORED)
