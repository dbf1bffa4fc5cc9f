"""The page of MLflow on which people compare the runs of an experiment: its columns and charts.

MLflow 3.17 keeps a view as a tag of the experiment, and opens it where the address names it. The
names are those of its own pages (``viewStateShareKey`` in mlflow/server/js).
"""

import json
from collections.abc import Sequence
from typing import Any

from imageclf.tracking.connection import PATIENT, opened_store
from imageclf.tracking.metric_names import grouped
from imageclf.tracking.queries import RunSummary, list_runs

KEY = "imageclf"
TAG = f"mlflow.sharedViewState.{KEY}"
TRAINING = "workflowType=machine_learning"  # else MLflow opens its pages for language models
# The first columns, of which a narrow window shows about three.
ACCURACIES, LOSSES = ("test_accuracy", "val_accuracy"), ("test_loss", "val_loss")
RATE = "train.learning_rate"
MOST_PARAMS = 8  # columns
WIDTH = 95  # pixels of a column
CURVES = "Curves"
LINES = {
    "accuracy": ("train/accuracy", "val/accuracy"),
    "loss": ("train/loss", "val/loss"),
}


def runs_page(experiment: str) -> str:
    """The path of the page, after its view is kept in MLflow.

    Before the first run of the experiment it is the list of experiments.

    Raises:
        UserError: MLflow cannot be read or written.
    """
    runs = [run for run in list_runs() if run.experiment == experiment]
    with opened_store(PATIENT) as store:
        found = store.client.get_experiment_by_name(experiment)
        if found is None:
            return f"/#/experiments?{TRAINING}"
        identifier = found.experiment_id
        store.client.set_experiment_tag(identifier, TAG, json.dumps(view(runs)))
    return f"/#/experiments/{identifier}/runs?{TRAINING}&viewStateShareKey={KEY}"


def view(runs: Sequence[RunSummary]) -> dict[str, Any]:
    """The state of the page for these runs."""
    params = _differing(runs)
    columns = [
        *(f"metrics.`{grouped(name)}`" for name in ACCURACIES),
        *(f"params.`{name}`" for name in params),
        *(f"metrics.`{grouped(name)}`" for name in LOSSES),
        "attributes.`User`",
        "attributes.`Dataset`",
        "attributes.`Models`",
    ]
    return {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, WIDTH),
        "compareRunCharts": _charts(params),
        "compareRunSections": [
            {"uuid": CURVES, "name": CURVES, "display": True, "isReordered": False}
        ],
    }


def _differing(runs: Sequence[RunSummary]) -> list[str]:
    """The learning rate, and the parameters that differ between the runs."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    differing = [name for name in names if len({run.params.get(name) for run in runs}) > 1]
    return list(dict.fromkeys([RATE, *differing]))[:MOST_PARAMS]


def _charts(params: list[str]) -> list[dict[str, Any]]:
    """Curves of both splits in one chart, the test accuracies, and parameters against them."""
    accuracy = grouped("test_accuracy")
    lines = [
        _chart("LINE", name, metricKey=keys[1], selectedMetricKeys=list(keys)) | LINE
        for name, keys in LINES.items()
    ]
    bars = _chart("BAR", accuracy, metricKey=accuracy)
    settings = {"selectedParams": params, "selectedMetrics": [accuracy], "showAllRuns": True}
    return [*lines, bars, _chart("PARALLEL", "parameters", **settings)]


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{CURVES}-{name}",
        "metricSectionId": CURVES,
        "displayName": name,
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": 10,
        **settings,
    }


# What MLflow's pages give a new chart of lines, all of which they read.
LINE: dict[str, Any] = {
    "lineSmoothness": 0,
    "scaleType": "linear",
    "xAxisScaleType": "linear",
    "xAxisKey": "step",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "range": {},
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
