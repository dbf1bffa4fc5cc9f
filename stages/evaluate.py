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

    import pandas as pd

    from imageclf.data.prepared import SPLITS, Split, load_features, load_split
    from imageclf.evaluation.calibration import calibrate, calibration_figures
    from imageclf.evaluation.metrics import metrics, per_class_table, predict
    from imageclf.evaluation.report import draw_training, warnings, write_report
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
    warned = list(warnings(figures, description, len(train)))
    with atomic_folder(EVALUATION) as target:
        draw_training(target, classifier, params, train, description.class_names)
        write_report(
            target,
            test,
            predictions,
            figures,
            description,
            history=pd.DataFrame(read_history(HISTORY)).astype({"epoch": int}),
            pictures=params.evaluate.pictures,
            warned=warned,
        )
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
