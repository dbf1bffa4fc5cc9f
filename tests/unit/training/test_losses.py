import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from helpers.params import make_params
from imageclf.training.losses import LossFunction, build_loss

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
OUTPUTS = {
    "cross_entropy": LOGITS,
    "nll": LOGITS.log_softmax(dim=1),
    "mse": LOGITS.softmax(dim=1),
}
OUTPUT_NAMES = {"cross_entropy": "logits", "nll": "log_softmax", "mse": "softmax"}


def loss(name: str, **changes: object) -> LossFunction:
    values = {f"train__{key}": value for key, value in changes.items()}
    params = make_params(train__loss=name, model__output=OUTPUT_NAMES[name], **values)
    return build_loss(params.train, LABELS, classes=3)


@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
def test_cross_entropy_is_that_of_scikit_learn(name: str) -> None:
    expected = log_loss(LABELS.numpy(), LOGITS.double().softmax(dim=1).numpy())
    assert loss(name)(OUTPUTS[name], LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_mse_is_the_brier_score_over_the_classes() -> None:
    one_hot = np.eye(3)[LABELS.numpy()]
    expected = np.square(OUTPUTS["mse"].numpy() - one_hot).mean()
    assert loss("mse")(OUTPUTS["mse"], LABELS).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", OUTPUTS)
def test_smoothing_is_a_mixture_with_the_even_distribution(name: str) -> None:
    smooth = 0.7 * torch.nn.functional.one_hot(LABELS, 3) + 0.1
    smoothed = loss(name, label_smoothing=0.3)(OUTPUTS[name], LABELS)
    torch.testing.assert_close(smoothed, loss(name)(OUTPUTS[name], smooth))


@pytest.mark.parametrize("name", OUTPUTS)
def test_shares_of_classes_are_taken_as_labels_are(name: str) -> None:
    one_hot = torch.nn.functional.one_hot(LABELS, 3).float()
    torch.testing.assert_close(
        loss(name)(OUTPUTS[name], one_hot), loss(name)(OUTPUTS[name], LABELS)
    )


@pytest.mark.parametrize("name", OUTPUTS)
def test_balanced_weights_are_those_of_scikit_learn(name: str) -> None:
    weights = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    single = [
        loss(name)(OUTPUTS[name][i : i + 1], LABELS[i : i + 1]).item() for i in range(len(LABELS))
    ]
    expected = np.average(single, weights=weights[LABELS.numpy()])
    balanced = loss(name, class_weights="balanced")(OUTPUTS[name], LABELS)
    assert balanced.item() == pytest.approx(expected, rel=1e-5)
