"""How a command names a model."""

import re

NUMBERED = re.compile(r"[^/@]+/\d+")  # such as digits/3
MODEL_NAMES = (
    "NAME (the newest version of a registered model), NAME@champion or NAME/3, with or without "
    "models:/; the name or id of a run; a fingerprint or its first 8 digits; or the path of a "
    "model's folder or exported file"
)


def is_version(what: str) -> bool:
    """Whether it is NAME@ALIAS or NAME/3."""
    name = what.removeprefix("models:/")
    return "@" in name or NUMBERED.fullmatch(name) is not None
