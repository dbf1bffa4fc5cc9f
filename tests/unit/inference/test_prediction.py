import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from imageclf.data.decoding import Pixels
from imageclf.data.opening import ImageError
from imageclf.files import UserError
from imageclf.inference.prediction import (
    BATCH,
    DECODED_AHEAD,
    NOTE,
    ExportedClassifier,
    Prediction,
    likeliest,
    load_exported,
)


@pytest.fixture(scope="module")
def classifier(onnx_file: Path) -> ExportedClassifier:
    return load_exported(onnx_file)


@pytest.fixture(scope="module")
def weights(onnx_file: Path) -> np.ndarray:
    """The matrix (64 x classes) of the one layer of ``onnx_file``."""
    matrix = onnx.load(onnx_file).graph.initializer[0]
    return onnx.numpy_helper.to_array(matrix)


def softmax(images: Pixels, weights: np.ndarray) -> np.ndarray:
    exponentials = np.exp(images.reshape(len(images), -1).astype(np.float64) @ weights)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def write_images(folder: Path, count: int) -> tuple[list[Path], Pixels]:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    paths = [folder / f"{number:04}.png" for number in range(count)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return paths, images


def test_the_metadata_tells_classes_shape_and_fingerprint(
    classifier: ExportedClassifier, onnx_file: Path
) -> None:
    assert classifier.class_names == ["a", "b", "c", "d"]
    assert classifier.image_shape == (8, 8, 1)
    assert classifier.fingerprint == "f" * 64
    assert load_exported(onnx_file.parent).class_names == classifier.class_names


def test_probabilities_are_those_of_the_network(
    classifier: ExportedClassifier, weights: np.ndarray
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    found = classifier.probabilities(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(images, weights), atol=1e-5)


@pytest.mark.parametrize("count", [1, BATCH, DECODED_AHEAD + BATCH + 3])
def test_files_are_predicted_in_their_order(
    classifier: ExportedClassifier, weights: np.ndarray, tmp_path: Path, count: int
) -> None:
    paths, images = write_images(tmp_path, count)
    results = [each for each in classifier.predict(paths) if isinstance(each, Prediction)]
    assert [result.path for result in results] == paths
    assert all((result.image == image).all() for result, image in zip(results, images, strict=True))
    found = np.stack([result.probabilities for result in results])
    np.testing.assert_allclose(found, softmax(images, weights), atol=1e-5)


def test_a_file_that_is_no_image_takes_its_place_as_an_error(
    classifier: ExportedClassifier, weights: np.ndarray, tmp_path: Path
) -> None:
    paths, images = write_images(tmp_path, BATCH + 2)
    broken = [0, 3, BATCH, BATCH + 1]
    for index in broken:
        paths[index].write_text("no image")
    results = list(classifier.predict(paths))
    assert [each.path for each in results] == paths
    assert [i for i, each in enumerate(results) if isinstance(each, ImageError)] == broken
    fourth = results[4]
    assert isinstance(fourth, Prediction)
    np.testing.assert_allclose(fourth.probabilities, softmax(images[4:5], weights)[0], atol=1e-5)


def test_an_image_unlike_those_of_the_training_has_a_note(
    classifier: ExportedClassifier, tmp_path: Path
) -> None:
    for name, level in (("bright", 210), ("dark", 20)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "bright.png", tmp_path / "dark.png"]
    found = [each for each in classifier.predict(paths) if isinstance(each, Prediction)]
    assert [each.note for each in found] == [NOTE, ""]
    assert [each.novelty for each in found] == pytest.approx([210 / 200, 20 / 200])
    negatives = [
        each for each in classifier.predict(paths, invert=True) if isinstance(each, Prediction)
    ]
    assert [each.note for each in negatives] == ["", NOTE]
    assert [each.image.max() for each in negatives] == [45, 235]


def test_a_model_of_an_earlier_version_tells_no_novelty(onnx_file: Path, tmp_path: Path) -> None:
    earlier = onnx.load(onnx_file)
    earlier.graph.output.pop()
    onnx.save(earlier, tmp_path / "model.onnx")
    Image.new("L", (8, 8), 255).save(tmp_path / "bright.png")
    (found,) = load_exported(tmp_path).predict([tmp_path / "bright.png"])
    assert isinstance(found, Prediction)
    assert found.note == ""


@pytest.mark.timeout(30)
def test_pipes_and_endless_devices_are_no_images(
    classifier: ExportedClassifier, tmp_path: Path
) -> None:
    (image,), _ = write_images(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    others = [tmp_path / "pipe.png", tmp_path / "zero.png"]
    *errors, predicted = classifier.predict([*others, image])
    assert [str(error) for error in errors] == [f"{path}: not a regular file" for path in others]
    assert isinstance(predicted, Prediction)


def test_nothing_readable_and_nothing_at_all(
    classifier: ExportedClassifier, tmp_path: Path
) -> None:
    (result,) = classifier.predict([tmp_path / "missing.png"])
    assert isinstance(result, ImageError)
    assert list(classifier.predict([])) == []


def test_only_a_bounded_number_of_files_is_read_ahead(
    classifier: ExportedClassifier, tmp_path: Path
) -> None:
    (path,), _ = write_images(tmp_path, 1)
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    results = classifier.predict(endless())
    for wanted in range(1, 4 * BATCH):
        next(results)
        assert taken <= wanted + BATCH + DECODED_AHEAD


def test_likeliest_first_and_ties_in_the_order_of_the_classes() -> None:
    probabilities = np.array([0.125, 0.25, 0.5, 0.125], dtype=np.float32)
    assert likeliest(probabilities, "abcd", 3) == [("c", 0.5), ("b", 0.25), ("a", 0.125)]
    assert len(likeliest(probabilities, "abcd", 9)) == 4


def test_a_missing_model_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exported/model.onnx is missing: run `dvc repro`"):
        load_exported(tmp_path / "exported")
    with pytest.raises(UserError, match=r"other.onnx is missing"):
        load_exported(tmp_path / "other.onnx")


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(UserError, match="is not a usable ONNX file") as caught:
        load_exported(tmp_path)
    assert "\n" not in str(caught.value)


def test_predicting_loads_neither_pytorch_nor_mlflow(onnx_file: Path, tmp_path: Path) -> None:
    (path,), _ = write_images(tmp_path, 1)
    script = (
        "import sys; from pathlib import Path\n"
        "from imageclf.inference.prediction import load_exported\n"
        "list(load_exported(Path(sys.argv[1])).predict([Path(sys.argv[2])]))\n"
        "print(sorted({'torch', 'mlflow', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(onnx_file), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
