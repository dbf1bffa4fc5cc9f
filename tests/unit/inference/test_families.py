"""Networks of many of timm's families take a step of the real training, and are exported."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.classifiers import description, novelty_of
from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import Split
from imageclf.inference.export import export, parity
from imageclf.network.classifier import build_classifier, load_classifier, save_classifier
from imageclf.training.loop import Training

SIDE, CLASSES = 64, 4
# The smallest of each family: graphs of few nodes, which are exported soon.
FAMILIES = [
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "test_resnet",
    "test_nfnet",
    "test_mambaout",
    "test_byobnet",
    "mobilenetv3_small_050",
    "regnetx_002",
    "deit_tiny_patch16_224",
    "ghostnet_050",
    "swin_tiny_patch4_window7_224",
    "maxvit_rmlp_pico_rw_256",
]


@pytest.fixture
def _deterministic() -> Iterator[None]:
    """As every stage computes on a CPU."""
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_a_family_learns_and_is_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = make_params(
        model__name=f"timm/{name}",
        model__output="logits",
        train__loss="cross_entropy",
        train__epochs=1,
        train__batch_size=8,
        transform__image_size=SIDE,
    )
    grey = learnable_split(16, seed=0, side=SIDE)
    split = Split(np.repeat(grey.images, 3, axis=3), grey.labels)
    stats = {"mean": [0.3] * 3, "std": [0.2] * 3}
    classifier = build_classifier(params.model, stats, (SIDE, SIDE, 3), CLASSES)
    training = Training(params, classifier, split, replace(split), CLASSES)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    before_step, after_step = training.trial_step()
    assert np.isfinite([before_step, after_step]).all()
    (result,) = training.run()
    assert np.isfinite(result.train_loss)
    after = classifier.state_dict()
    learnt = [name for name, _ in classifier.named_parameters()]
    assert sum(not torch.equal(before[name], after[name]) for name in learnt) > len(learnt) / 2
    told = description(
        model=params.model,
        image_shape=[SIDE, SIDE, 3],
        class_names=["a", "b", "c", "d"],
        fit="crop",
        **stats,
    )
    save_classifier(classifier, told, tmp_path / "classifier")
    classifier, told = load_classifier(tmp_path / "classifier")
    novelty = novelty_of(classifier, split.images[:8])
    export(classifier, novelty, told, tmp_path)
    proof = parity(classifier, novelty, split.images, tmp_path, params.export.tolerance)
    assert max(proof["largest_difference"].values()) <= params.export.tolerance
