"""Classes for image files from the exported ONNX file, without the slow import of PyTorch."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclf.data.decoding import Pixels, decode
from imageclf.data.opening import ImageError
from imageclf.data.shapes import as_stored, shape_in_memory
from imageclf.files import UserError
from imageclf.network.description import Metadata, read_metadata
from imageclf.sections import Fitting
from imageclf.system.workers import in_order

MODEL_FILE = "model.onnx"
BATCH = 64
# Images that are decoded before they are predicted: enough for all threads, few enough for memory.
DECODED_AHEAD = 2 * BATCH
NOTE = "unlike anything this model was trained on"


@dataclass(frozen=True)
class Prediction:
    """A file, the network's input (uint8, H x W x C) and its probabilities (float32, classes).

    ``novelty`` is above 1 for an image that is unlike those of val; 0 where the model tells none.
    """

    path: Path
    image: Pixels
    probabilities: NDArray[np.float32]
    novelty: float = 0.0

    @property
    def note(self) -> str:
        """What casts doubt on the probabilities; empty if nothing does."""
        return NOTE if self.novelty > 1 else ""


@dataclass(frozen=True)
class ExportedClassifier:
    """A trained classifier read back from its ONNX file."""

    session: Any
    class_names: list[str]
    image_shape: tuple[int, int, int]
    fitting: Fitting
    fingerprint: str

    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """The first of ``outputs``."""
        return self.outputs(images)[0]

    def outputs(self, images: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities (float32, N x classes) and novelty (float32, N) of uint8 N x H x W x C.

        Raises:
            UserError: the network cannot be run, or gives something else.
        """
        stored = as_stored(images)
        try:
            found = self.session.run(None, {"images": stored})
        # ONNX Runtime's errors have no common class but Exception.
        except Exception as error:
            raise UserError(f"the network of the model fails ({_brief(error)})") from error
        nothing = np.zeros(len(images), np.float32)  # of a model that tells no novelty
        probabilities, novelty = found if len(found) > 1 else (*found, nothing)
        if probabilities.shape != (len(images), len(self.class_names)):
            raise UserError("the network of the model does not give a probability for each class")
        if not (np.isfinite(probabilities).all() and np.isfinite(novelty).all()):
            raise UserError("the network of the model gives values that are no finite numbers")
        return probabilities, novelty

    def predict(
        self, paths: Iterable[Path], invert: bool = False
    ) -> Iterator[Prediction | ImageError]:
        """Predict the image of every path, in order; a file that is no image yields its error.

        Several threads decode a bounded number of files ahead: memory does not grow with the paths.
        With ``invert`` the network sees the negatives of the images.
        """
        with closing(_decoded(paths, self.image_shape, self.fitting, invert)) as decoded:
            while batch := list(islice(decoded, BATCH)):
                images = [image for _, image in batch if not isinstance(image, ImageError)]
                rows = iter(zip(*self.outputs(np.stack(images)), strict=True) if images else ())
                for path, image in batch:
                    if isinstance(image, ImageError):
                        yield image
                    else:
                        probabilities, novelty = next(rows)
                        yield Prediction(path, image, probabilities, float(novelty))


def load_exported(path: Path) -> ExportedClassifier:
    """Load ``model.onnx`` from an exported folder, or an .onnx file given by name.

    Raises:
        UserError: the file is missing, is not ONNX, or does not carry the metadata of an export.
    """
    import onnxruntime

    file = path if path.suffix == ".onnx" else path / MODEL_FILE
    if not file.is_file():
        raise UserError(f"{file} is missing: run `dvc repro` to make it")
    options = onnxruntime.SessionOptions()
    # Threads that spin between batches would slow down the threads that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors have no common class but Exception.
    except Exception as error:
        raise UserError(f"{file} is not a usable ONNX file ({_brief(error)})") from error
    metadata = read_metadata(file, session.get_modelmeta().custom_metadata_map)
    _check_graph(file, session, metadata)
    return ExportedClassifier(
        session,
        metadata.class_names,
        shape_in_memory(metadata.image_shape),
        metadata.fitting,
        metadata.fingerprint,
    )


def _brief(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _check_graph(file: Path, session: Any, metadata: Metadata) -> None:
    """Refuse a graph that takes or gives something else than its metadata tell."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    found = [(each.name, each.type, each.shape[1:]) for each in tensors]
    wanted = [
        ("images", "tensor(uint8)", metadata.image_shape),
        ("probabilities", "tensor(float)", [len(metadata.class_names)]),
        ("novelty", "tensor(float)", []),
    ]
    # Earlier versions of this project wrote no novelty.
    if found not in (wanted, wanted[:2]):
        raise UserError(
            f"{file} was not exported by this project: it maps {_told(found)}, and not "
            f"{_told(wanted)}"
        )


def _told(tensors: Iterable[tuple[str, str, Sequence[object]]]) -> str:
    parts = (f"{name} {kind} {'x'.join(map(str, shape))}" for name, kind, shape in tensors)
    return " to ".join(parts)[:300]


def likeliest(
    probabilities: NDArray[np.float32], class_names: Sequence[str], count: int
) -> list[tuple[str, float]]:
    """The ``count`` most probable classes with their probabilities, the most probable first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(class_names[index], float(probabilities[index])) for index in order]


def _decoded(
    paths: Iterable[Path], image_shape: Sequence[int], fitting: Fitting, invert: bool
) -> Generator[tuple[Path, Pixels | ImageError], None, None]:
    pool = ThreadPoolExecutor()
    try:
        calls = ((path, image_shape, fitting, invert) for path in paths)
        yield from in_order(pool, _image_or_error, calls, DECODED_AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def _image_or_error(
    path: Path, image_shape: Sequence[int], fitting: Fitting, invert: bool
) -> tuple[Path, Pixels | ImageError]:
    try:
        image = decode(path, image_shape, fitting)
    except ImageError as error:
        return path, error
    return path, 255 - image if invert else image
