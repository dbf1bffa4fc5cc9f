"""Portable files from raw uint8 images to probabilities and novelty, and the check that they agree.

Both files come from one traced graph with a free batch dimension: ``model.pt2`` for
``torch.export.load`` and ``model.onnx`` for every ONNX runtime. The metadata of the ONNX file hold
class names, image shape, fit and fingerprint, so that it can be used without this project.
"""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imageclf.data.prepared import Images, Pixels
from imageclf.data.shapes import as_stored
from imageclf.files import UserError, sha256_file
from imageclf.inference.novelty import Novelty, statistics
from imageclf.network.classifier import Classifier, to_pixels
from imageclf.network.description import Description

BATCHES = (1, 2, 7)
ONNX_OPSET = 18


class _Exported(nn.Module):
    """Probabilities and novelty of images of the stored shape."""

    def __init__(self, classifier: Classifier, novelty: Novelty) -> None:
        super().__init__()
        self.classifier, self.novelty = classifier, novelty

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return _outputs(self.classifier, self.novelty, pixels.float())


def _outputs(classifier: Classifier, novelty: Novelty, pixels: Tensor) -> tuple[Tensor, Tensor]:
    features = classifier.features_of(pixels)
    probabilities = classifier.as_probabilities(classifier.network.head(features))
    return probabilities, novelty(features, statistics(pixels))


def export(
    classifier: Classifier, novelty: Novelty, description: Description, folder: Path
) -> None:
    """Write ``model.pt2`` and ``model.onnx`` into an existing folder.

    The classifier is on the CPU, in eval mode.
    """
    example = torch.zeros((2, *description.image_shape), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with _as_exported(classifier):
        program = torch.export.export(
            _Exported(classifier, novelty).eval(), (example,), dynamic_shapes={"images": {0: batch}}
        )
    _forget_where_it_was_traced(program)
    content = io.BytesIO()  # where the disk is full, torch's own writer aborts the process
    torch.export.save(program, content)
    (folder / "model.pt2").write_bytes(content.getbuffer())
    _export_onnx(program, description, folder / "model.onnx")


def parity(
    classifier: Classifier, novelty: Novelty, images: Images, folder: Path, tolerance: float
) -> dict[str, Any]:
    """Compare the exported files with the model on real images at batches of 1, 2 and 7.

    Args:
        classifier: on the CPU, in eval mode.
        novelty: on the CPU.
        images: used again from the first one if they are too few.
        folder: holds ``model.pt2`` and ``model.onnx``.
        tolerance: the largest allowed difference of a probability, or of a squared distance.

    Returns:
        The content of ``parity.json``.

    Raises:
        UserError: a file disagrees with the model.
    """
    runners = {"model.onnx": _onnx_runner(folder), "model.pt2": _pt2_runner(folder)}
    largest = dict.fromkeys(runners, 0.0)
    # Novelty is compared as the squared distance that it tells: where all images of val are alike,
    # the threshold is next to 0, and rounding errors over it are large.
    units = (1.0, novelty.threshold.item() ** 2)
    start = 0
    for size in BATCHES:
        batch = images[np.arange(start, start + size) % len(images)]
        start += size
        with torch.no_grad():
            expected = _outputs(classifier, novelty, to_pixels(torch.from_numpy(batch)))
        for name, run in runners.items():
            for found, its, unit in zip(run(as_stored(batch)), expected, units, strict=True):
                difference = float(np.abs(np.asarray(found) - its.numpy()).max()) * unit
                largest[name] = max(largest[name], difference)
    for name, difference in largest.items():
        if not difference <= tolerance:
            raise UserError(
                f"{name} disagrees with the model: an output differs by {difference:.2g}, "
                f"more than export.tolerance ({tolerance:g}); nothing was exported"
            )
    return {
        "agree": True,
        "sha256": {name: sha256_file(folder / name) for name in runners},
        "tolerance": tolerance,
        "batches": list(BATCHES),
        "largest_difference": {name: float(f"{value:.3g}") for name, value in largest.items()},
    }


@contextmanager
def _as_exported(network: nn.Module) -> Iterator[None]:
    """Let modules compute in the way that torch translates into ONNX.

    Attention of timm computes its formula step by step: torch fails to translate the fused
    operation where windows are small (MaxViT). No activation overwrites its input: torch takes
    three times as long to translate the ReLU6 of EfficientNet-Lite0 in place.
    """
    switched: list[tuple[Any, str]] = [
        (module, name)
        for module in network.modules()
        for name in ("fused_attn", "inplace")
        if getattr(module, name, False)
    ]
    for module, name in switched:
        setattr(module, name, False)
    try:
        yield
    finally:
        for module, name in switched:
            setattr(module, name, True)


def _export_onnx(
    program: torch.export.ExportedProgram, description: Description, path: Path
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            opset_version=ONNX_OPSET,
            input_names=["images"],
            output_names=["probabilities", "novelty"],
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = exported.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    metadata = {
        "class_names": description.class_names,
        "image_shape": description.image_shape,
        **description.fitting.stored(),
        "fingerprint": description.fingerprint,
    }
    for key, value in metadata.items():
        model.metadata_props.add(
            key=key, value=value if isinstance(value, str) else json.dumps(value)
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


def _forget_where_it_was_traced(program: torch.export.ExportedProgram) -> None:
    """Drop source paths and line numbers, so that the bytes do not depend on the folder."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)


def _onnx_runner(folder: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return lambda batch: session.run(None, {"images": batch})


def _pt2_runner(folder: Path) -> Any:
    module = torch.export.load(folder / "model.pt2").module()

    def run(batch: Pixels) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(batch))

    return run
