"""What is fitted on the val split after the training, and exported with the classifier."""

from dataclasses import dataclass
from pathlib import Path

import torch

from imageclf.files import UserError, atomic_path
from imageclf.inference.novelty import Novelty


@dataclass(frozen=True)
class Calibration:
    """The temperature by which logits are divided before their softmax, and what tells novelty.

    A temperature of 1 changes nothing.
    """

    temperature: float
    novelty: Novelty

    def write(self, path: Path) -> None:
        """Write it as a file of safetensors."""
        from safetensors.torch import save

        temperature = torch.tensor(self.temperature, dtype=torch.float64)
        with atomic_path(path) as target:
            target.write_bytes(save({"temperature": temperature, **self.novelty.state_dict()}))


def read_calibration(path: Path) -> Calibration:
    """Read what ``Calibration.write`` wrote, on the CPU.

    Raises:
        UserError: the file is missing or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        return Calibration(float(tensors.pop("temperature")), Novelty(**tensors))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no usable file ({error}): run `dvc repro evaluate`") from None
