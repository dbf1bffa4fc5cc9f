"""Ways to 51 % of two classes with good images and a good network, and what stops each of them.

docs/course.md gives the figures of each on cats and dogs.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.classifiers import STATS, description, novelty_of
from helpers.images import learnable_split
from helpers.params import make_params
from helpers.small_training import fresh, small
from imageclf.data.prepared import Split
from imageclf.files import UserError
from imageclf.inference.export import export, parity
from imageclf.network.classifier import build_classifier, to_pixels
from imageclf.training.learner import measure
from imageclf.training.loop import Training
from imageclf.training.losses import build_loss, image_count
from imageclf.training.sanity import ChanceWatch, check

CLASSES = 4
TRAIN, VAL = learnable_split(1000, seed=0), learnable_split(400, seed=1)
CNN = {"model__name": "cnn", "model__width": 8, "model__depth": 1, "transform__image_size": 28}


def shuffled(split: Split, seed: int) -> Split:
    return Split(split.images, np.random.default_rng(seed).permutation(split.labels))


def warnings_of(train: Split, val: Split) -> list[str]:
    """What the watch says at the end of each epoch."""
    params = small(train__epochs=2)
    training = Training(params, fresh(params), train, val, CLASSES)
    watch = ChanceWatch(training)
    said = [watch.after(result) for result in training.run()]
    return [warning for warning in said if warning]


@pytest.mark.parametrize("which", ["train", "val"])
def test_labels_shuffled_against_the_images_are_told_after_an_epoch(which: str) -> None:
    assert warnings_of(TRAIN, VAL) == []
    train = shuffled(TRAIN, 0) if which == "train" else TRAIN
    val = shuffled(VAL, 1) if which == "val" else VAL
    (warning,) = warnings_of(train, val)
    assert "it is not learning yet" in warning
    assert "the labels" in warning


def test_a_rate_that_destroys_the_weights_is_told_before_the_training() -> None:
    params = small(train__learning_rate=3.0)
    (warning,) = check(Training(params, fresh(params), TRAIN, VAL, CLASSES))
    assert "train.learning_rate is probably too high" in warning


def test_a_file_that_normalises_otherwise_is_not_exported(tmp_path: Path) -> None:
    """Normalisation is part of the classifier, so that nobody can forget it."""
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1)).astype(np.uint8)
    torch.manual_seed(0)
    model = make_params().model
    classifier = build_classifier(model, STATS, (28, 28, 1), 10).eval()
    novelty = novelty_of(classifier, images)
    export(classifier, novelty, description(), tmp_path)
    assert parity(classifier, novelty, images, tmp_path, tolerance=1e-5)["agree"]
    torch.manual_seed(0)
    raw = build_classifier(model, {"mean": [0.0], "std": [1.0]}, (28, 28, 1), 10).eval()
    with pytest.raises(UserError, match=r"model.onnx disagrees with the model"):
        parity(raw, novelty, images, tmp_path, tolerance=1e-5)


def test_what_is_measured_does_not_depend_on_mode_or_order() -> None:
    """In train mode batch norm mixes the images of a batch: one class at a time goes wrong."""
    train, val = (learnable_split(n, seed, side=28) for n, seed in ((400, 0), (200, 1)))
    params = small(**CNN, model__output="logits", train__loss="cross_entropy")
    torch.manual_seed(0)
    classifier = build_classifier(params.model, STATS, (28, 28, 1), CLASSES)
    result = list(Training(params, classifier, train, val, CLASSES).run())[-1]
    images, labels = torch.tensor(val.images), torch.tensor(val.labels)
    order = labels.argsort()
    batches = list(zip(images[order].split(20), labels[order].split(20), strict=True))
    loss = build_loss(params.train, labels, CLASSES)
    classifier.train()
    assert measure(classifier, batches, loss, image_count)[1] == result.val_accuracy > 0.95
    classifier.train()
    with torch.no_grad():
        answers = [classifier.from_pixels(to_pixels(some)).argmax(dim=1) for some, _ in batches]
    assert (torch.cat(answers) == labels[order]).float().mean() < 0.9
