import base64
import io

import numpy as np
import pytest
from PIL import Image

from imageclf.drawing.pictures import SIDE, data_address


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_is_kept_dot_by_dot(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, channels)).astype(np.uint8)
    address = data_address(pixels)
    assert address.startswith("data:image/png;base64,")
    assert (np.array(opened(address)) == pixels.squeeze()).all()


def test_a_photograph_becomes_a_small_jpeg() -> None:
    address = data_address(np.full((400, 200, 3), 128, dtype=np.uint8))
    assert address.startswith("data:image/jpeg;base64,")
    assert opened(address).size == (SIDE // 2, SIDE)
