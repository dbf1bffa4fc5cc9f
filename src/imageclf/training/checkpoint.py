"""Checkpoints: what lets a killed training go on where it stood.

They live outside every DVC out, because DVC deletes outs before it runs a stage, under the
fingerprint of the model, so that one can never be mistaken for another's.
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
    """The checkpoint of one model: a single file, always whole.

    Args:
        fingerprint: names the folder.
        minutes: after which ``is_due``.
        root: holds the folders of all models.
    """

    def __init__(self, fingerprint: str, minutes: float, root: Path = ROOT) -> None:
        self._folder = root / fingerprint
        self._path = self._folder / "latest.pt"
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state saved last, None if there is none. Nothing is unpickled but tensors.

        Raises:
            UserError: the file is not one of ours.
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
        # Given a file, torch makes a RuntimeError of Ctrl-C, and given a path, of a full disk.
        content = BytesIO()
        torch.save(state, content)
        with atomic_writer(self._path) as file:
            file.write(content.getbuffer())
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is older than it should be."""
        return time.monotonic() - self._saved > self._seconds

    def clear(self) -> None:
        """Remove the checkpoint of a training that is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def clear_others(self) -> None:
        """Remove what trainings of other models left in this folder."""
        for folder in self._folder.parent.glob("[0-9a-f]" * 64):
            if folder != self._folder:
                shutil.rmtree(folder)
