"""models/classifier, the test split or its features -> reports: metrics.json and evaluation."""

import click

from command import stage
from imageclf.files import atomic_folder, write_json
from imageclf.params import Params
from imageclf.project.folder import (
    CALIBRATION,
    CLASSIFIER,
    EVALUATION,
    FEATURES,
    HISTORY,
    METRICS,
    PREPARED,
)
from imageclf.text import printable
from imageclf.training.device import prepare_runtime
from imageclf.training.history import read_history


@stage
def main(params: Params) -> None:
    """Measure the trained classifier on the test split, which no earlier stage used."""
    runtime = prepare_runtime(params)

    import numpy as np

    from imageclf.data.prepared import SPLITS, Split, load_features, load_split
    from imageclf.evaluation.calibration import calibrate, calibration_figures
    from imageclf.evaluation.cost import cost
    from imageclf.evaluation.curves import reliability
    from imageclf.evaluation.gallery import read_rows
    from imageclf.evaluation.metrics import confusion_matrix, metrics, per_class_table, predict
    from imageclf.evaluation.report import look_inside, write_report
    from imageclf.evaluation.report_page import Report
    from imageclf.evaluation.verdict import Evidence
    from imageclf.network.classifier import load_classifier

    classifier, description = load_classifier(CLASSIFIER)
    classifier = classifier.to(runtime.device)
    train, val, test = (load_split(PREPARED, name) for name in SPLITS)
    features: dict[str, Split] = {}
    if params.trains_on_features:
        splits = {"val": val, "test": test}
        features = {name: load_features(FEATURES, name, each) for name, each in splits.items()}
    calibration = calibrate(classifier, val, features.get("val"), params.evaluate.calibrate)
    calibration.write(CALIBRATION)
    classifier.temperature = calibration.temperature
    predictions = predict(classifier, test, features.get("test"))
    figures = metrics(predictions, train.labels, params.evaluate.top_k)
    figures |= calibration_figures(predictions, calibration.temperature)
    evidence = Evidence(
        figures,
        description,
        read_history(HISTORY),
        confusion_matrix(predictions, len(description.class_names)),
        np.bincount(train.labels, minlength=len(description.class_names)),
        reliability(predictions),
        params.train.class_weights,
    )
    report = Report(
        test,
        read_rows(PREPARED / "manifest.parquet"),
        predictions,
        evidence,
        look_inside(classifier, params, train, description.class_names),
        cost(classifier, CLASSIFIER, test.images),
        params.evaluate.pictures,
        params.seed,
    )
    with atomic_folder(EVALUATION) as target:
        warned = write_report(target, report)
    write_json(METRICS, figures)

    names = [printable(name) for name in description.class_names]
    click.echo(per_class_table(predictions, names).to_string(index=False))
    click.echo(
        f"\ntest accuracy {figures['accuracy']:.2%} on {figures['images']:,} images"
        f" (always guessing the commonest class: {figures['majority_accuracy']:.2%})"
    )
    for warning in warned:
        click.echo(f"warning: {warning}", err=True)
    click.echo("report: reports/evaluation/index.html")


if __name__ == "__main__":
    main()
