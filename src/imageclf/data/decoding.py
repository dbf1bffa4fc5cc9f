"""The one decoder for every image the project ever reads.

A photograph from a phone, a scan with 16 bits, a logo with a transparent background: all become
the same upright uint8 pixels, or are refused with a reason. Colour profiles are not applied.
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
from imageclf.params import Fit

Pixels = NDArray[np.uint8]

# The filter widens when an image shrinks, so nothing is skipped; unlike a box it also enlarges
# smoothly, and unlike Lanczos it hardly rings at the hard edges of digits and clothes. Pillow calls
# it bicubic.
FILTER = FilterType.catmull_rom
# For photographs: half the work, and what the networks of torchvision were trained with.
PHOTO_FILTER = FilterType.bilinear
FILTERS = {"fill": FILTER, "crop": PHOTO_FILTER, "pad": PHOTO_FILTER, "stretch": PHOTO_FILTER}
# The share of the shorter side that `crop` leaves.
CROPPED = 224 / 255
# JPEG decodes at 1/2, 1/4 or 1/8 for much less work. As long as that still is 4 times the side
# asked for, it moves no pixel by more than 8 levels at 1/2 (13 at 1/4), on average by 0.3; at 2
# times it would be 15 and 0.7 (81 photographs).
JPEG_OVERSAMPLING = 4
JPEG_REDUCTIONS = (8, 4, 2, 1)
JPEG_FORMATS = {"JPEG", "MPO"}  # MPO: several JPEGs in a file, as some phones write
# By the number of channels: Pillow's name of an image's mode, and the resizer's.
MODES = {1: "L", 3: "RGB"}
LAYOUTS = {1: PixelType.U8, 3: PixelType.U8x3}

# https://exiftool.org/TagNames/EXIF.html, tag 0x0112: what turns each orientation upright.
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
    """An image as the network gets it, and what it was before.

    Attributes:
        pixels: uint8, of the shape asked for.
        height: of the whole image, upright, in pixels.
        width: likewise.
        changes: what was done to its values and its orientation, in a few words each.
    """

    pixels: Pixels
    height: int
    width: int
    changes: tuple[str, ...]


def decode(source: Path | bytes, image_shape: Sequence[int], fit: Fit = "fill") -> Pixels:
    """The pixels of an image, as ``read`` gives them."""
    return read(source, image_shape, fit).pixels


def read(source: Path | bytes, image_shape: Sequence[int], fit: Fit) -> Decoded:
    """Read an image, turn it upright and bring it to the shape asked for.

    For ``crop``, the common way with photographs, the shorter side is scaled to 255/224 of that
    shape and the centre cut out; ``fill`` is the same without that margin; ``pad`` keeps all of the
    image, with black beside it; ``stretch`` keeps all of it and changes its proportions.

    Of an animation the first frame is read. Transparent images are laid over white.

    Args:
        source: a file, or the content of one.
        image_shape: (H, W, C), with one channel for grey and three for RGB.
        fit: how it comes to H x W.

    Raises:
        ImageError: the file is missing, of none of the formats in ``image_files``, damaged, cut
            short, too large, or of samples that are not supported.
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
        fitted = _fitted(pixels, (whole[0] / reduction, whole[1] / reduction), height, width, fit)
    # Damaged files make Pillow raise nearly anything: KeyError, struct.error, SyntaxError, ...
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
    """An image at another size.

    Args:
        pixels: uint8, H x W x C.
        height: of the result.
        width: likewise.
        kind: of the filter, which widens by as much as the image shrinks.
        box: the part to be used: left, top, width and height, in pixels and fractions of them.

    Returns:
        uint8, height x width x C; the same bytes whatever the processor.
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
    """Whether an image claims to hold more than greys; False for what is no image."""
    try:
        with pillow_silenced, opened(content) as image:
            return not is_grey(image)
    # As in ``read``, which later says what is wrong with the file.
    except Exception:
        return False


def find_images(folder: Path) -> list[Path]:
    """Every file below ``folder`` with the suffix of an image, sorted; litter is left out.

    Links are followed, but for those to a folder that holds them.
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
    """All of an opened image as it is stored, and by how many times smaller than it says.

    Args:
        content: of the file.
        image: the same, opened.
        mode: L or RGB, what is wanted.
        side: the larger one of those asked for.
    """
    if image.format in JPEG_FORMATS and image.mode in {"L", "RGB"}:
        longest = min(image.size) / (JPEG_OVERSAMPLING * side)
        reduction = next(factor for factor in JPEG_REDUCTIONS if factor <= max(longest, 1))
        smallest = {
            "min_height": -(-image.height // reduction),
            "min_width": -(-image.width // reduction),
        }
        colours = "GRAY" if mode == "L" else "RGB"
        # The same pixels as Pillow's in two thirds of the time. What it finds fault with, Pillow
        # may read all the same, or tells what is wrong.
        with suppress(ValueError):
            return simplejpeg.decode_jpeg(content, colours, **smallest), reduction
    load(image)
    return np.atleast_3d(np.asarray(eight_bits(image, mode))), 1


def _fitted(pixels: Pixels, size: tuple[float, float], height: int, width: int, fit: Fit) -> Pixels:
    """An image of ``size`` (width, height) brought to height x width."""
    if fit == "pad":
        return _padded(pixels, size, height, width)
    box = (0.0, 0.0, *size)
    if fit in {"crop", "fill"}:
        scale = min(size[0] / width, size[1] / height) * (CROPPED if fit == "crop" else 1)
        # Rounding must not lead out of the image.
        used = (min(width * scale, size[0]), min(height * scale, size[1]))
        box = ((size[0] - used[0]) / 2, (size[1] - used[1]) / 2, *used)
    return resized(pixels, height, width, FILTERS[fit], box)


def _padded(pixels: Pixels, size: tuple[float, float], height: int, width: int) -> Pixels:
    scale = max(size[0] / width, size[1] / height)
    inner = max(1, round(size[1] / scale)), max(1, round(size[0] / scale))
    top, left = round((height - inner[0]) / 2), round((width - inner[1]) / 2)
    target = np.zeros((height, width, pixels.shape[2]), np.uint8)
    whole = resized(pixels, *inner, PHOTO_FILTER, (0.0, 0.0, *size))
    target[top : top + inner[0], left : left + inner[1]] = whole
    return target


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Broken EXIF data, which Pillow reports in many ways, tells nothing: as if there were none.
    except Exception:
        return None
