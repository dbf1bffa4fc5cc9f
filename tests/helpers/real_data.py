"""Real images, for the tests that want them; CONTRIBUTING.md says what can be put where."""

import os
from pathlib import Path

import pytest

VARIABLE = "IMAGECLF_TEST_DATA"
REAL_DATA = Path(os.environ.get(VARIABLE) or os.devnull).resolve()


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of these folders is not there."""
    missing = [name for name in names if not (REAL_DATA / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{VARIABLE} leads to no {', '.join(missing)}")
