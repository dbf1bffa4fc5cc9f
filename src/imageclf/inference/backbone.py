"""A frozen backbone in ONNX Runtime, several times as fast on a CPU as in torch.

It is compared with torch first, on the machine where it runs.
"""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from imageclf.network.classifier import Classifier
from imageclf.text import printable

ONNX_OPSET = 17
# The largest difference of a feature, as a share of the largest feature if that is above 1.
# Between a GPU and a CPU, and between processors, it is of the same kind.
TOLERANCE = 1e-3
COMPARED = 8  # images
PIECE = 4  # images that a thread computes at a time


class _Features(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images)


def features_of(
    classifier: Classifier, image_shape: Sequence[int], tell: Callable[[str], object]
) -> Callable[[Tensor], Tensor]:
    """The function from images (uint8, N x H x W x C) to features (float32, N x F), on the device.

    ONNX Runtime computes it if the device is the CPU, the backbone can be exported, and both agree
    on the first images that the function gets; else torch. ``tell`` gets which one.
    """
    if classifier.scale.device.type != "cpu":
        return torch.inference_mode()(classifier.features)
    if (exported := _exported(classifier, image_shape, tell)) is None:
        return torch.inference_mode()(classifier.features)
    chosen: Callable[[Tensor], Tensor] | None = None

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        nonlocal chosen
        if chosen is None:
            chosen, told = _compared(classifier, _in_onnx_runtime(exported), images[:COMPARED])
            tell(told)
        return chosen(images)

    return features


def features_in_bf16(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """The same function as ``features_of``, computed by torch in bf16 where autocast does that."""

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return classifier.features(images).float()

    return features


def _exported(
    classifier: Classifier, image_shape: Sequence[int], tell: Callable[[str], object]
) -> bytes | None:
    """The backbone as ONNX, from images to features.

    None if an operation of the network cannot be exported; ``tell`` gets why. The older exporter of
    torch is used: it takes a second where the newer one takes fifteen.
    """
    example = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.onnx"
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _Features(classifier).eval(),
                (example,),
                path,
                dynamo=False,
                opset_version=ONNX_OPSET,
                input_names=["images"],
                output_names=["features"],
                dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
            )
        # The exporter raises many types for networks that it does not know.
        except Exception as error:
            tell(f"torch computes the features: the network has no ONNX form ({_brief(error)})")
            return None
        return path.read_bytes()


def _in_onnx_runtime(exported: bytes) -> Callable[[Tensor], Tensor]:
    """The exported backbone as a function, each thread of which computes images of its own.

    On two cores that takes two thirds of the time of two threads that share each operation.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    threads = ThreadPoolExecutor(torch.get_num_threads())

    def run(piece: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": piece.numpy()})[0])

    return lambda images: torch.cat(list(threads.map(run, images.split(PIECE))))


def _compared(
    classifier: Classifier, run: Callable[[Tensor], Tensor], images: Tensor
) -> tuple[Callable[[Tensor], Tensor], str]:
    """What is to compute the features, and that in words."""
    expected = classifier.features(images)
    difference = (run(images) - expected).abs().max().item()
    largest = max(1.0, expected.abs().max().item())
    if difference <= TOLERANCE * largest:
        return run, f"ONNX Runtime computes the features, {difference:.1g} from torch's at most"
    return classifier.features, f"torch computes the features: ONNX's are {difference:.1g} away"


def _brief(error: Exception) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))[:200]
