"""Images as addresses that hold the image itself, for pages that need no file beside them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96  # pixels of a picture on a page, at most
SMALL = 32  # pixels of the side up to which a picture is drawn dot by dot, which JPEG would blur


def data_address(pixels: NDArray[np.uint8]) -> str:
    """The address (``data:...``) of an image (uint8, H x W x C), which is shrunk to ``SIDE``."""
    image = Image.fromarray(pixels.squeeze())
    image.thumbnail((SIDE, SIDE))
    return as_address(image, "PNG" if image.width <= SMALL else "JPEG")


def as_address(image: Image.Image, form: str) -> str:
    """The address of an image, as it is, in a format of Pillow's."""
    content = io.BytesIO()
    image.save(content, form, quality=85)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
