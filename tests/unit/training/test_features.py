from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import load_features
from imageclf.evaluation.metrics import predict
from imageclf.files import UserError
from imageclf.network import classifier as module
from imageclf.network.classifier import build_classifier
from imageclf.training.features import write_features, write_no_features

SPLIT = learnable_split(50, seed=0, side=28)


def test_features_are_what_the_head_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVALUATION_IMAGES", 16)  # so that the last batch is not whole
    params = make_params(model__name="cnn", model__width=4, model__dropout=0.5, model__head=[5])
    classifier = build_classifier(params.model, {"mean": [0.3], "std": [0.2]}, (28, 28, 1), 4)
    done: list[int] = []
    features_of = torch.inference_mode()(classifier.eval().features)
    write_features(features_of, torch.device("cpu"), SPLIT, tmp_path / "val.npy", done.append)
    assert done == [16, 16, 16, 2]
    features = load_features(tmp_path, "val", SPLIT)
    assert (features.images.dtype, features.images.shape) == (np.float32, (50, 16))
    assert (features.labels == SPLIT.labels).all()
    with torch.no_grad():
        whole = classifier.eval()(torch.tensor(SPLIT.images))
        ours = classifier.network.head(torch.tensor(features.images))
    torch.testing.assert_close(ours, whole)
    by_features = predict(classifier, SPLIT, features).probabilities
    np.testing.assert_allclose(by_features, predict(classifier, SPLIT).probabilities, rtol=1e-5)


def test_features_of_other_images_are_refused(tmp_path: Path) -> None:
    write_no_features(tmp_path)
    with pytest.raises(UserError, match="train.npy is not of these images: run `dvc repro`"):
        load_features(tmp_path, "train", SPLIT)
    with pytest.raises(UserError, match="other.npy is unreadable"):
        load_features(tmp_path, "other", SPLIT)
