"""What is fitted on the val split after the training, and exported with the classifier."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imageclf.files import UserError, atomic_path


@dataclass(frozen=True)
class Calibration:
    """The temperature by which logits are divided before their softmax; 1 changes nothing."""

    temperature: float = 1.0

    def write(self, path: Path) -> None:
        """Write it as a file of safetensors."""
        from safetensors.numpy import save

        with atomic_path(path) as target:
            target.write_bytes(save({"temperature": np.array(self.temperature)}))


def read_calibration(path: Path) -> Calibration:
    """Read what ``Calibration.write`` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return Calibration(float(load_file(path)["temperature"]))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no usable file ({error}): run `dvc repro evaluate`") from None
