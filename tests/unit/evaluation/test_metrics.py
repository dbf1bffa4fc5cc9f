import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as reference_confusion

from imageclf.data.prepared import Split
from imageclf.evaluation.metrics import (
    Predictions,
    confusion_matrix,
    f1_interval,
    metrics,
    per_class_table,
    predict,
    predictions_table,
    worst_first,
)
from imageclf.network.architectures import Network
from imageclf.network.classifier import Classifier


@pytest.fixture
def predictions() -> Predictions:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 400)
    logits = generator.normal(size=(400, 5)) + 2 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(probabilities.astype(np.float32), labels)


def test_figures_agree_with_scikit_learn_and_the_formulas(predictions: Predictions) -> None:
    train_labels = np.array([2] * 5 + [1] * 3)
    figures = metrics(predictions, train_labels, top_k=2)
    labels = predictions.labels
    assert figures["accuracy"] == accuracy_score(labels, predictions.predicted)
    assert figures["loss"] == pytest.approx(log_loss(labels, predictions.probabilities), abs=1e-4)
    assert figures["majority_accuracy"] == (labels == 2).mean()
    two_likeliest = np.argsort(-predictions.probabilities, axis=1)[:, :2]
    assert figures["top_2_accuracy"] == (two_likeliest == labels[:, None]).any(axis=1).mean()
    assert figures["images"] == 400


def test_among_the_likeliest_of_no_more_classes_says_nothing(predictions: Predictions) -> None:
    assert "top_4_accuracy" in metrics(predictions, predictions.labels, top_k=4)
    assert not any("top" in name for name in metrics(predictions, predictions.labels, top_k=5))


def test_the_low_end_is_that_of_the_wilson_interval(predictions: Predictions) -> None:
    figures = metrics(predictions, predictions.labels, top_k=1)
    interval = binomtest(round(400 * figures["accuracy"]), 400).proportion_ci(0.99, "wilson")
    assert figures["accuracy_low"] == pytest.approx(interval.low, abs=1e-4)


def test_the_interval_of_f1_holds_it() -> None:
    matrix = np.array([[80, 20, 0], [10, 90, 0], [0, 0, 0]])
    first, second, third = f1_interval(matrix)
    assert first[0] < 160 / 190 < first[1]
    assert second[0] < 180 / 210 < second[1]
    assert third == (0, 1)
    wilson = binomtest(80, 110).proportion_ci(0.99, "wilson")  # right, of either class or answer
    assert first == pytest.approx([2 * end / (1 + end) for end in (wilson.low, wilson.high)])


def test_each_class_has_the_figures_of_scikit_learn(predictions: Predictions) -> None:
    table = per_class_table(predictions, [*"abcde"])
    expected = precision_recall_fscore_support(predictions.labels, predictions.predicted)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert table[name].tolist() == pytest.approx(values, abs=1e-4)


def test_confusion_counts_by_true_row_and_predicted_column(predictions: Predictions) -> None:
    expected = reference_confusion(predictions.labels, predictions.predicted)
    assert (confusion_matrix(predictions, 5) == expected).all()


def test_a_class_never_predicted_or_never_seen_gets_zeros(predictions: Predictions) -> None:
    table = per_class_table(predictions, [*"abcde", "never"][:5])
    assert table["support"].sum() == 400
    wider = Predictions(np.pad(predictions.probabilities, ((0, 0), (0, 1))), predictions.labels)
    last = per_class_table(wider, [*"abcdef"]).iloc[-1]
    assert last[["precision", "recall", "f1", "support"]].tolist() == [0, 0, 0, 0]


def test_the_worst_mistake_comes_first(predictions: Predictions) -> None:
    order = worst_first(predictions)
    assert (np.diff(predictions.loss[order]) <= 0).all()
    true_class = predictions.probabilities[np.arange(400), predictions.labels]
    assert order[0] == true_class.argmin()


def test_certainty_of_a_wrong_class_has_a_finite_loss() -> None:
    certain = Predictions(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert np.isfinite(certain.loss).all()


def test_predictions_table_names_the_classes(predictions: Predictions) -> None:
    table = predictions_table(predictions, [*"abcde"], [f"{n}.png" for n in range(400)])
    assert (table.columns[0], table["name"].iloc[-1]) == ("actual", "399.png")
    assert (table["actual"] == np.array([*"abcde"])[predictions.labels]).all()
    assert table["probability"].between(0.2, 1).all()


def test_predict_covers_every_image_in_order_and_in_eval_mode() -> None:
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
    network = Network(backbone, torch.nn.Sequential(torch.nn.Linear(4, 3)))
    classifier = Classifier(network, [0.5], [0.5], "logits").train()
    images = np.random.default_rng(0).integers(0, 256, (2300, 2, 2, 1)).astype(np.uint8)
    result = predict(classifier, Split(images, np.zeros(2300, dtype=np.int64)))
    with torch.no_grad():
        expected = classifier.eval().probabilities(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-5)
