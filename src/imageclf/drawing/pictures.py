"""Images as addresses that hold the image itself, for pages that need no file beside them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96  # pixels of a picture on a page, at most
WIDEST = 640  # of one drawn of values
SMALL = 32  # pixels of the side up to which a picture is drawn dot by dot, which JPEG would blur


def data_address(pixels: NDArray[np.uint8]) -> str:
    """The address (``data:...``) of an image (uint8, H x W x C), which is shrunk to ``SIDE``."""
    image = Image.fromarray(pixels.squeeze())
    image.thumbnail((SIDE, SIDE))
    if image.width <= SMALL:
        return _address(image, "PNG")
    return _address(image, "JPEG", quality=85)


def signed_address(values: NDArray[np.float32]) -> str:
    """The address of values (H x W) as a picture: -1 is red, 1 blue, NaN transparent."""
    from matplotlib import colormaps

    colours = (255 * colormaps["RdBu"](np.linspace(0, 1, 255))[:, :3]).astype(np.uint8)
    places = np.where(np.isnan(values), 255, 127 * (values + 1)).astype(np.uint8)
    image = Image.fromarray(places)
    image.putpalette([*colours.ravel().tolist(), 0, 0, 0])
    if image.width > WIDEST:
        image = image.resize((WIDEST, max(1, image.height * WIDEST // image.width)))
    return _address(image, "PNG", transparency=255)


def _address(image: Image.Image, form: str, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
