"""The fingerprint of a model: one sha256 over everything that it is made from.

It covers what DVC checks for the train stage: the command, the tracked parameters, the prepared
data and the source files. They are read from dvc.yaml, so that the two cannot disagree.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imageclf.files import UserError, digest_of, read_yaml, sha256_file
from imageclf.params import Params, tracked_values
from imageclf.project.folder import DVC_YAML, files_below


def fingerprint(params: Params) -> str:
    """The sha256 over everything that determines what the train stage writes.

    Raises:
        UserError: dvc.yaml or one of the stage's dependencies is missing.
    """
    try:
        return training_digest(params, sha256_of)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro`") from None


def training_digest(params: Params, content: Callable[[str], Any]) -> str:
    """The sha256 over the train stage's command, parameters and dependencies.

    Args:
        params: those that the stage lists, singly or by section, are covered.
        content: gives a JSON value that identifies the content of a dependency, by its path.
    """
    stage = read_yaml(Path(DVC_YAML))["stages"]["train"]
    listed = tuple(f"{name}." for name in stage["params"])
    values = tracked_values(params).items()
    return digest_of(
        {
            "cmd": stage["cmd"],
            "params": {key: value for key, value in values if f"{key}.".startswith(listed)},
            "deps": {path: content(path) for path in stage["deps"]},
        }
    )


def sha256_of(dependency: str) -> str:
    """The sha256 of a file, or of the names and contents of a folder of files."""
    path = Path(dependency)
    if not path.is_dir():
        return sha256_file(path)
    return digest_of({name: sha256_file(file) for name, file in files_below(path).items()})
