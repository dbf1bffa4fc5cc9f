"""The project's folder: its root, and the paths of what the pipeline writes."""

import os
from fnmatch import fnmatch
from pathlib import Path

PIPELINE = DVC_YAML, PARAMS, LOCK = ("dvc.yaml", "params.yaml", "dvc.lock")

RAW, PREPARED, FEATURES = Path("data/raw"), Path("data/prepared"), Path("data/features")
PRETRAINED, CLASSIFIER = Path("models/pretrained"), Path("models/classifier")
CALIBRATION = Path("models/calibration.safetensors")
OWN_INPUT = PRETRAINED / "input.json"
EXPORTED = Path("models/exported")
ONNX, PARITY = EXPORTED / "model.onnx", EXPORTED / "parity.json"
REPORTS = Path("reports")
AUDIT, AUDIT_PAGE = REPORTS / "data.json", REPORTS / "data.html"
HISTORY, METRICS = REPORTS / "history.csv", REPORTS / "metrics.json"
EVALUATION = REPORTS / "evaluation"
PREDICTIONS, WARNINGS = EVALUATION / "predictions.csv", EVALUATION / "warnings.json"
COMPARISON = REPORTS / "compare.html"
HOME = Path(".imageclf/home")  # of a user who has no other
# What .dvcignore makes DVC leave out of every folder: files of Python and of editors.
IGNORED = ("__pycache__", ".*", "*~", "#*#")


def project_root() -> Path:
    """The project's root, also within DVC's temporary folders of experiments."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).absolute()


def files_below(folder: Path) -> dict[str, Path]:
    """Every file that DVC sees in a folder, by its relative path, sorted."""
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: found[name]
        for name in sorted(found)
        if not any(fnmatch(part, pattern) for part in name.split("/") for pattern in IGNORED)
    }
