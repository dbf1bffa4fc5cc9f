from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.classifiers import STATS, description
from helpers.params import make_params
from imageclf.files import UserError, read_json, write_json
from imageclf.network.classifier import (
    Classifier,
    build_classifier,
    load_classifier,
    save_classifier,
)


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_pixels_are_normalised_before_the_network_sees_them() -> None:
    classifier = Classifier(torch.nn.Flatten(), [0.3], [0.2], "logits")
    batch = images(2, 4, 4, 1)
    expected = (batch.float() / 255 - 0.3) / 0.2
    torch.testing.assert_close(classifier(batch), expected.reshape(2, 16))


def test_colour_images_are_normalised_channel_by_channel() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    classifier = Classifier(torch.nn.Identity(), mean, std, "logits")
    batch = images(2, 4, 5, 3)
    expected = (batch.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(classifier(batch), expected.permute(0, 3, 1, 2))


def test_without_normalisation_the_network_sees_0_to_255() -> None:
    model = make_params(model__normalize="none", model__hidden=[]).model
    classifier = build_classifier(model, STATS, (4, 4, 1), 3)
    batch = images(2, 4, 4, 1)
    torch.testing.assert_close(
        classifier(batch), classifier.network(batch.float().permute(0, 3, 1, 2))
    )


@pytest.mark.parametrize(
    ("output", "loss"),
    [("log_softmax", "nll"), ("logits", "cross_entropy"), ("softmax", "mse")],
)
def test_probabilities_fit_every_output(output: str, loss: str) -> None:
    model = make_params(model__output=output, train__loss=loss).model
    classifier = build_classifier(model, STATS, (28, 28, 1), 10)
    batch = images(3, 28, 28, 1)
    probabilities = classifier.probabilities(batch)
    result = classifier(batch)
    expected = {"log_softmax": result.exp(), "logits": result.softmax(dim=1), "softmax": result}
    torch.testing.assert_close(probabilities, expected[output])


@pytest.mark.parametrize("normalize", ["standard", "none"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_saved_classifier_comes_back_the_same(tmp_path: Path, name: str, normalize: str) -> None:
    model = make_params(model__name=name, model__normalize=normalize).model
    classifier = build_classifier(model, STATS, (28, 28, 1), 10).eval()
    told_first = description(model=model)
    save_classifier(classifier, told_first, tmp_path / "model")
    restored, told = load_classifier(tmp_path / "model")
    batch = images(5, 28, 28, 1)
    assert torch.equal(restored.probabilities(batch), classifier.probabilities(batch))
    assert told == told_first
    assert not restored.training


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    classifier = build_classifier(make_params(model__hidden=[8]).model, STATS, (28, 28, 1), 10)
    save_classifier(classifier, description(), tmp_path / "model")
    with pytest.raises(UserError, match="does not fit model.json"):
        load_classifier(tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="model.safetensors is no usable file"):
        load_classifier(tmp_path / "model")


def test_a_description_of_another_version_is_refused(tmp_path: Path) -> None:
    model = make_params().model
    save_classifier(
        build_classifier(model, STATS, (28, 28, 1), 10), description(), tmp_path / "model"
    )
    file = tmp_path / "model/model.json"
    whole = read_json(file)
    for changed in ({"unknown": 1}, {"model": {"name": "mlp"}}):
        write_json(file, whole | changed)
        with pytest.raises(UserError, match="none of this version's"):
            load_classifier(tmp_path / "model")


def test_equal_classifiers_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(1)
        classifier = build_classifier(make_params().model, STATS, (28, 28, 1), 10)
        save_classifier(classifier, description(), tmp_path / name)
    for file in ("model.safetensors", "model.json"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert np.array_equal(one, two)
