from pathlib import Path

import pytest

from imageclf.files import UserError
from imageclf.preparation.idx import read_idx


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (b"\0\0\x08\1\0\0\0\5ab", "truncated"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / "broken")
