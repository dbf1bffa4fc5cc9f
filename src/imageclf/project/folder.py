"""The project's folder: where its root is, and where the pipeline keeps what it makes."""

import os
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


def project_root() -> Path:
    """The project's folder, also from within DVC's temporary experiment folders."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).absolute()
