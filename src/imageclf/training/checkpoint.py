"""Checkpoints: the state from which a killed training continues.

They lie outside all outs of DVC, because DVC deletes outs before it runs a stage. The folder is
named by the model's fingerprint, so that no training takes another model's checkpoint.
"""

import pickle
import shutil
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from imageclf.files import UserError, atomic_writer

ROOT = Path(".checkpoints")


class Checkpoints:
    """The checkpoint of one model: a single file below ``root``, always whole."""

    def __init__(self, fingerprint: str, minutes: float, root: Path = ROOT) -> None:
        self._folder = root / fingerprint
        self._path = self._folder / "latest.pt"
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None. Only tensors are unpickled.

        Raises:
            UserError: the file is not a checkpoint.
        """
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{self._path} is unreadable ({type(error).__name__}): delete it to start anew"
            ) from error
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint: whole or not at all."""
        # Writing to a file, torch turns Ctrl-C into a RuntimeError; to a path, a full disk.
        content = BytesIO()
        torch.save(state, content)
        with atomic_writer(self._path) as file:
            file.write(content.getbuffer())
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is older than ``minutes``."""
        return time.monotonic() - self._saved > self._seconds

    def clear(self) -> None:
        """Remove the checkpoint of a training that is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def clear_others(self) -> None:
        """Remove the checkpoints of all other models."""
        for folder in self._folder.parent.glob("[0-9a-f]" * 64):
            if folder != self._folder:
                shutil.rmtree(folder)
