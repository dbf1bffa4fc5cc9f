"""The one decoder for every image that the project reads.

A photograph from a phone, a scan with 16 bits, a logo with a transparent background: all become
upright uint8 pixels, or are refused with a reason. Colour profiles are not applied.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)
from numpy.typing import NDArray
from PIL import ExifTags, Image

from imageclf.data.image_files import is_image, is_litter
from imageclf.data.opening import (
    ImageError,
    content_of,
    load,
    opened,
    pillow_silenced,
    reason_of,
)
from imageclf.data.samples import changes, eight_bits, is_grey, prepare
from imageclf.sections import Fitting

Pixels = NDArray[np.uint8]

# The filter widens when an image shrinks, so no pixel is skipped. Unlike a box it enlarges
# smoothly, and unlike Lanczos it hardly rings at the hard edges of digits and clothes. Pillow calls
# it bicubic.
FILTER = FilterType.catmull_rom
# For photographs: half the work, and the filter that torchvision's networks were trained with.
PHOTO_FILTER = FilterType.bilinear
FILTERS = {"fill": FILTER, "crop": PHOTO_FILTER, "pad": PHOTO_FILTER, "stretch": PHOTO_FILTER}
INTERPOLATIONS = {"bicubic": FILTER, "bilinear": PHOTO_FILTER}
# The share of the shorter side that `crop` leaves if nothing else is said.
CROPPED = 224 / 255
FILL = Fitting("fill")
# JPEG decodes at 1/2, 1/4 or 1/8 with much less work. If the result still has 4 times the wanted
# side, pixels differ by at most 8 levels at 1/2 (13 at 1/4), on average by 0.3; at 2 times the
# side by 15 and 0.7 (81 photographs).
JPEG_OVERSAMPLING = 4
JPEG_REDUCTIONS = (8, 4, 2, 1)
JPEG_FORMATS = {"JPEG", "MPO"}  # MPO: several JPEGs in a file, as some phones write
# By the number of channels: Pillow's mode, and the resizer's.
MODES = {1: "L", 3: "RGB"}
LAYOUTS = {1: PixelType.U8, 3: PixelType.U8x3}

# https://exiftool.org/TagNames/EXIF.html, tag 0x0112: the operation that turns each one upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {turn for orientation, turn in _UPRIGHT.items() if orientation >= 5}


@dataclass(frozen=True)
class Decoded:
    """The input of the network, and what the image was before.

    Attributes:
        pixels: uint8, of the wanted shape.
        height: of the whole upright image, in pixels.
        width: likewise.
        changes: each change of its values and orientation, in a few words.
    """

    pixels: Pixels
    height: int
    width: int
    changes: tuple[str, ...]


def decode(source: Path | bytes, image_shape: Sequence[int], fitting: Fitting = FILL) -> Pixels:
    """The pixels that ``read`` gives."""
    return read(source, image_shape, fitting).pixels


def read(source: Path | bytes, image_shape: Sequence[int], fitting: Fitting) -> Decoded:
    """Read an image, turn it upright and fit it to the wanted shape.

    ``crop``, the common way with photographs, scales the shorter side to 255/224 of that shape and
    cuts out the centre; ``fill`` is the same without that margin; ``pad`` keeps the whole image,
    with black beside it; ``stretch`` keeps it and changes its proportions. Only the first frame of
    an animation is read. Transparent images are laid over white.

    Args:
        source: a file, or its content.
        image_shape: (H, W, C), with one channel for grey and three for RGB.
        fitting: how the image is fitted to H x W.

    Raises:
        ImageError: the file is missing, damaged, cut short, too large, of no format in
            ``image_files``, or has samples that are not supported.
    """
    path = source if isinstance(source, Path) else None
    height, width, channels = image_shape
    mode = MODES[channels]
    try:
        content = source if isinstance(source, bytes) else content_of(source)
        with pillow_silenced, opened(content) as image:
            made = changes(image, mode)
            prepare(image, content)
            pixels, reduction = _decoded(content, image, mode, max(height, width))
            turn = _turn(image)
            whole = image.size
        if turn in _SIDEWAYS:
            height, width = width, height
        fitted = _fitted(
            pixels, (whole[0] / reduction, whole[1] / reduction), height, width, fitting
        )
    # For damaged files Pillow raises many types: KeyError, struct.error, SyntaxError, ...
    except Exception as error:
        raise ImageError(path, reason_of(error)) from error
    if turn is not None:
        fitted = np.array(Image.fromarray(fitted.squeeze()).transpose(turn)).reshape(image_shape)
        made = ("turned upright", *made)
    if turn in _SIDEWAYS:
        whole = whole[::-1]
    return Decoded(fitted, whole[1], whole[0], made)


def resized(
    pixels: Pixels,
    height: int,
    width: int,
    kind: FilterType = FILTER,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """An image (uint8, H x W x C) at another size (uint8, height x width x C).

    ``box`` is the part to be used: left, top, width and height, in pixels and fractions of them.
    The bytes of the result do not depend on the processor.
    """
    stored_height, stored_width, channels = pixels.shape
    layout = LAYOUTS[channels]
    source = ImageData(stored_width, stored_height, layout, pixels.tobytes())
    target = ImageData(width, height, layout)
    part = CropBox(*box) if box else None
    Resizer().resize(source, target, ResizeOptions(ResizeAlg.convolution(kind), crop_box=part))
    values = np.frombuffer(bytearray(target.get_buffer()), np.uint8)
    return values.reshape(height, width, channels)


def has_colour(content: bytes) -> bool:
    """Whether an image claims to have colours; False if it is no image."""
    try:
        with pillow_silenced, opened(content) as image:
            return not is_grey(image)
    # As in ``read``, which later gives the reason.
    except Exception:
        return False


def find_images(folder: Path) -> list[Path]:
    """Every file below ``folder`` with the suffix of an image, sorted; litter is left out.

    Links are followed, except links to a folder that holds them.
    """
    found: list[Path] = []
    for above, inside, names in os.walk(folder, followlinks=True):
        here = Path(above)
        inside[:] = [
            name
            for name in inside
            if not is_litter(name) and not here.resolve().is_relative_to((here / name).resolve())
        ]
        found += [here / name for name in names if is_image(name) and not is_litter(name)]
    return sorted(path for path in found if path.is_file())


def _decoded(content: bytes, image: Image.Image, mode: str, side: int) -> tuple[Pixels, int]:
    """The pixels of a whole opened image in ``mode``, and the factor by which they are reduced.

    ``content`` is that of its file, ``side`` the larger one of the wanted sides.
    """
    if image.format in JPEG_FORMATS and image.mode in {"L", "RGB"}:
        longest = min(image.size) / (JPEG_OVERSAMPLING * side)
        reduction = next(factor for factor in JPEG_REDUCTIONS if factor <= max(longest, 1))
        smallest = {
            "min_height": -(-image.height // reduction),
            "min_width": -(-image.width // reduction),
        }
        colours = "GRAY" if mode == "L" else "RGB"
        # The same pixels as Pillow's in two thirds of the time. If it raises, Pillow may still
        # read the file, or give the reason.
        with suppress(ValueError):
            return simplejpeg.decode_jpeg(content, colours, **smallest), reduction
    load(image)
    return np.atleast_3d(np.asarray(eight_bits(image, mode))), 1


def _fitted(
    pixels: Pixels, size: tuple[float, float], height: int, width: int, fitting: Fitting
) -> Pixels:
    """An image of ``size`` (width, height), fitted to height x width."""
    fit, interpolation, crop = fitting
    kind = INTERPOLATIONS[interpolation] if interpolation else FILTERS[fit]
    if fit == "pad":
        return _padded(pixels, size, height, width, kind)
    box = (0.0, 0.0, *size)
    if fit in {"crop", "fill"}:
        scale = min(size[0] / width, size[1] / height)
        scale *= (crop or CROPPED) if fit == "crop" else 1
        # Rounding must not exceed the image.
        used = (min(width * scale, size[0]), min(height * scale, size[1]))
        box = ((size[0] - used[0]) / 2, (size[1] - used[1]) / 2, *used)
    return resized(pixels, height, width, kind, box)


def _padded(
    pixels: Pixels, size: tuple[float, float], height: int, width: int, kind: FilterType
) -> Pixels:
    scale = max(size[0] / width, size[1] / height)
    inner = max(1, round(size[1] / scale)), max(1, round(size[0] / scale))
    top, left = round((height - inner[0]) / 2), round((width - inner[1]) / 2)
    target = np.zeros((height, width, pixels.shape[2]), np.uint8)
    whole = resized(pixels, *inner, kind, (0.0, 0.0, *size))
    target[top : top + inner[0], left : left + inner[1]] = whole
    return target


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Pillow raises many types for damaged EXIF data, which is ignored.
    except Exception:
        return None
