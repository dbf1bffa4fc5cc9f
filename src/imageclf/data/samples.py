"""Convert the samples of an image file to 8 bits, grey or RGB, or give a reason why not.

Pillow silently reads some layouts of few or many bits wrongly. They are corrected here, or refused.
"""

import re
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from imageclf.data.opening import MAX_PIXELS, ImageError

# What lies behind transparent pixels.
BACKGROUND = "white"
GREY_MODES = {"1", "L", "LA", "La", "F"}
# Greys of 32 bits do not define which value is white: it is the first of these that is not
# exceeded, or for integers the largest of their type.
WHITE_VALUES = (1, 255, 2**16 - 1)
WHITE_IS_ZERO, SIGNED = 0, 2  # TIFF 6.0, PhotometricInterpretation and SampleFormat
PNG_BITS = 24  # offset of the bits per sample in a PNG
# ISO 15444-1, A.5.1. Offsets from the start of the codestream: the number of components, and every
# 3 bytes for each of them a byte with the sign in its top bit and bits - 1 in the others.
JPEG2000_START = b"\xff\x4f\xff\x51"
JPEG2000_COUNT, JPEG2000_BITS = 40, 42


def is_grey(image: Image.Image) -> bool:
    """Whether an opened image claims to hold only greys."""
    return image.mode in GREY_MODES or image.mode.startswith("I")


def changes(image: Image.Image, mode: str) -> tuple[str, ...]:
    """The changes that convert an opened, not yet loaded image to ``mode``, L or RGB."""
    grey = is_grey(image)
    made = {
        "more than 8 bits scaled to 8": _is_deep(image),
        "CMYK to RGB": image.mode == "CMYK",
        "palette looked up": image.mode in {"P", "PA"},
        f"transparency over {BACKGROUND}": image.has_transparency_data,
        "colour to grey": mode == "L" and not grey,
        "grey to RGB": mode == "RGB" and grey,
    }
    return tuple(change for change, is_made in made.items() if is_made)


def prepare(image: Image.Image, content: bytes) -> None:
    """Correct what Pillow read wrongly of an opened, not yet loaded image.

    Raises:
        ImageError: its pixels would be wrong.
    """
    if isinstance(image, TiffImageFile):
        _prepare_tiff(image)
    elif image.format == "JPEG2000":
        _check_jpeg2000(content)
    elif image.format == "PNG" and "transparency" in image.info:
        if image.mode == "RGB" and _is_deep(image):
            raise ImageError(None, "a PNG with one transparent colour and 16 bits, not supported")
        if image.mode == "L":
            # The file gives the value in its own bits; Pillow scales the pixels to 8.
            image.info["transparency"] *= 255 // (2 ** content[PNG_BITS] - 1)


def eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert a loaded image to ``mode``, L or RGB, also where Pillow's own way gives wrong values.

    Raises:
        ImageError: it holds greys on no known scale.
    """
    if _is_deep_grey(image):
        image = _scaled_grey(image)
    elif image.has_transparency_data:
        behind = Image.new("RGBA", image.size, BACKGROUND)
        plain = image.convert("LA") if image.mode == "La" else image
        image = Image.alpha_composite(behind, plain.convert("RGBA"))
    elif image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _is_deep(image: Image.Image) -> bool:
    arguments = [tile.args for tile in getattr(image, "tile", [])]
    if image.format == "PPM" and image.mode == "RGB":
        return any(isinstance(each, tuple) and each[-1] > 255 for each in arguments)
    coloured = image.format in {"PNG", "TIFF"} and ";16" in str(arguments)
    return _is_deep_grey(image) or coloured


def _prepare_tiff(image: TiffImageFile) -> None:
    if image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0) > MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.mode == "L" and _is_signed(image):
        raise ImageError(None, "a TIFF with signed greys of 8 bits, not supported")
    if image.mode == "F" and _white_is_zero(image):
        raise ImageError(None, "a TIFF with floating-point greys whose white is 0, not supported")
    if image.mode in {"P", "PA"} and max(image.tag_v2[COLORMAP]) < 2**8:
        raise ImageError(None, "a TIFF whose palette has 8 instead of 16 bits, not supported")
    # libtiff gives the byte order of the machine; Pillow expects that of the file.
    (tile,) = image.tile
    rawmode, *rest = cast("tuple[Any, ...]", tile.args)
    native = re.sub(r"^([IF];\d+)B?([SF])$", r"\1N\2", rawmode)
    image.tile = [tile._replace(args=(native, *rest))]


def _check_jpeg2000(content: bytes) -> None:
    """Refuse images whose white Pillow's rounding turns to black, or whose few bits it darkens."""
    start = content.find(JPEG2000_START, max(content.find(b"jp2c"), 0))
    components, first = start + JPEG2000_COUNT, start + JPEG2000_BITS
    count = int.from_bytes(content[components:first])
    bits = {value + 1 for value in content[first : first + 3 * count : 3]}
    if bits != {8} and not (count == 1 and bits <= set(range(9, 17))):
        raise ImageError(None, "a JPEG 2000 that has neither 8 bits nor greys of 9 to 16")


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Greys of 12, 16 or 32 bits, integer or float, as 8 bits."""
    stored = np.asarray(image)
    whites = _white_values(image)
    if whites[-1] == 2**32 - 1:
        stored = stored.view(np.uint32)  # Pillow reads them as signed
    darkest, brightest = stored.min().item(), stored.max().item()
    white = next((value for value in whites if brightest <= value), 0)
    # If the image would be black on the scale of 32 bits, the scale is another one.
    if not darkest >= 0 or not white or (white > 2**16 and brightest * 255 < white):
        reason = f"grey values from {darkest:g} to {brightest:g} are on no known scale"
        raise ImageError(None, reason)
    shades = np.rint(stored.astype(np.float32) * (255 / white)).astype(np.uint8)
    if _white_is_zero(image):
        shades = 255 - shades
    if (transparent := image.info.get("transparency")) is not None:
        shades[stored == transparent] = 255
    return Image.fromarray(shades)


def _white_values(image: Image.Image) -> tuple[int, ...]:
    """The candidates for white: the first that no grey of the image exceeds."""
    if image.mode == "F":
        return WHITE_VALUES
    if not isinstance(image, TiffImageFile):
        return (2**16 - 1,)  # Pillow scales PNG, PPM and JPEG 2000 to this
    bits = image.tag_v2[BITSPERSAMPLE][0]
    largest = 2 ** (bits - _is_signed(image)) - 1
    return (*WHITE_VALUES, largest) if bits == 32 else (largest,)


def _is_signed(image: TiffImageFile) -> bool:
    return bool(image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == SIGNED)


def _white_is_zero(image: Image.Image) -> bool:
    if not isinstance(image, TiffImageFile):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO) == WHITE_IS_ZERO)
