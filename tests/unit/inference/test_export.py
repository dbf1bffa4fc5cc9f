import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers.classifiers import STATS, description, novelty_of
from helpers.params import make_params
from imageclf.files import UserError, sha256_file
from imageclf.inference.export import export, parity
from imageclf.inference.novelty import Novelty
from imageclf.network.classifier import Classifier, Description, build_classifier

KNOWN = np.random.default_rng(1).integers(0, 256, (30, 28, 28, 1)).astype(np.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Classifier, Novelty, Description, Path]:
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    classifier = build_classifier(
        make_params(model__dropout=0.5).model, STATS, (28, 28, 1), 10
    ).eval()
    classifier.temperature = 1.7
    novelty = novelty_of(classifier, KNOWN)
    export(classifier, novelty, description(), folder)
    return classifier, novelty, description(), folder


def test_both_files_agree_with_the_model(
    exported: tuple[Classifier, Novelty, Description, Path],
) -> None:
    classifier, novelty, _, folder = exported
    proof = parity(classifier, novelty, IMAGES, folder, tolerance=1e-5)
    assert proof["agree"]
    assert proof["sha256"] == {
        name: sha256_file(folder / name) for name in ("model.onnx", "model.pt2")
    }
    assert set(proof["largest_difference"]) == {"model.onnx", "model.pt2"}
    assert parity(classifier, novelty, IMAGES[:1], folder, tolerance=1e-5)["batches"] == [1, 2, 7]


def test_a_file_that_disagrees_is_refused(
    exported: tuple[Classifier, Novelty, Description, Path],
) -> None:
    _, novelty, _, folder = exported
    torch.manual_seed(1)
    other = build_classifier(make_params().model, STATS, (28, 28, 1), 10).eval()
    with pytest.raises(
        UserError, match="model.onnx disagrees with the model.*nothing was exported"
    ):
        parity(other, novelty, IMAGES, folder, tolerance=1e-5)


def test_the_onnx_file_says_what_it_is(
    exported: tuple[Classifier, Novelty, Description, Path],
) -> None:
    *_, told, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (image,), (output, novelty) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("images", "tensor(uint8)", [28, 28])
    assert isinstance(image.shape[0], str)
    assert (output.name, output.type) == ("probabilities", "tensor(float)")
    assert (novelty.name, novelty.type) == ("novelty", "tensor(float)")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == told.class_names
    assert json.loads(metadata["image_shape"]) == [28, 28]
    assert metadata["fingerprint"] == told.fingerprint


def test_the_exported_novelty_is_above_one_for_what_is_unlike_the_known_images(
    exported: tuple[Classifier, Novelty, Description, Path],
) -> None:
    *_, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    flat = np.repeat(np.uint8([0, 128, 255]), 28 * 28).reshape(3, 28, 28)
    for images, unlike in ((KNOWN[..., 0], False), (IMAGES[..., 0] // 2, True), (flat, True)):
        (novelty,) = session.run(["novelty"], {"images": images})
        assert novelty.shape == (len(images),)
        assert ((novelty > 1) == unlike).all()
    np.testing.assert_allclose(session.run(["novelty"], {"images": KNOWN[..., 0]})[0], 0, atol=1e-5)


def test_no_path_of_this_machine_is_in_the_files(
    exported: tuple[Classifier, Novelty, Description, Path],
) -> None:
    *_, folder = exported
    root = str(Path(__file__).parents[3]).encode()
    for path in folder.iterdir():
        assert root not in path.read_bytes()
    assert not (folder / "model.onnx.data").exists()


def test_the_same_model_gives_the_same_bytes(
    exported: tuple[Classifier, Novelty, Description, Path], tmp_path: Path
) -> None:
    classifier, novelty, told, folder = exported
    export(classifier, novelty, told, tmp_path)
    for name in ("model.onnx", "model.pt2"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_convolutional_net_on_colour_images_exports_too(tmp_path: Path) -> None:
    model = make_params(model__name="cnn", model__output="softmax", train__loss="mse").model
    shape = (32, 32, 3)
    stats = {"mean": [0.4] * 3, "std": [0.2] * 3}
    classifier = build_classifier(model, stats, shape, 10).eval()
    classifier.temperature = 0.6
    images = np.random.default_rng(0).integers(0, 256, (10, *shape)).astype(np.uint8)
    novelty = novelty_of(classifier, images[:4])
    novelty.threshold.fill_(1e-3)  # as of images that are all alike
    export(classifier, novelty, description(image_shape=[*shape], **stats), tmp_path)
    assert parity(classifier, novelty, images, tmp_path, tolerance=1e-4)["agree"]
    onnx.checker.check_model(tmp_path / "model.onnx")
