"""What a model is made from, as one sha256.

It covers what DVC looks at for the train stage: the command, the tracked parameters, the prepared
data and the source files, all read from dvc.yaml, so that the two can never disagree.
"""

from pathlib import Path

from imageclf.files import UserError, digest_of, read_yaml, sha256_file
from imageclf.params import Params, tracked_values


def fingerprint(params: Params) -> str:
    """The sha256 over everything that determines what the train stage writes.

    Raises:
        UserError: dvc.yaml or one of the stage's dependencies is missing.
    """
    definition = read_yaml(Path("dvc.yaml"))["stages"]["train"]
    values = tracked_values(params)
    try:
        return digest_of(
            {
                "cmd": definition["cmd"],
                "params": {name: values[name] for name in definition["params"]},
                "deps": {path: _digest(Path(path)) for path in definition["deps"]},
            }
        )
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro`") from None


def _digest(path: Path) -> str:
    """Of a file, or of the names and contents of a folder of files."""
    if not path.is_dir():
        return sha256_file(path)
    return digest_of({file.name: sha256_file(file) for file in path.iterdir()})
