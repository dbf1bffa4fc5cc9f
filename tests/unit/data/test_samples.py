"""Every layout of samples gives the right pixels or is refused, never wrong ones.

The files are written byte by byte, those of JPEG 2000 by imagecodecs (level 0, reversible).
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.image_bytes import (
    BLACK_IS_ZERO,
    CMYK,
    FLOAT,
    PALETTE,
    PREMULTIPLIED,
    REST,
    RGB,
    SEPARATE,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    bmp,
    png,
    stored,
    tiff,
)
from imageclf.data.decoding import Decoded, read
from imageclf.data.opening import ImageError
from imageclf.sections import Fitting

Array = NDArray[Any]
SIDE = 16
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
COLOURS = np.dstack([RAMP, RAMP[::-1], RAMP.T])
OPACITY = np.flip(RAMP)
DEEP = "more than 8 bits scaled to 8"


def decoded(content: bytes, colour: bool = True) -> Decoded | None:
    """As it comes, at its own size; None where it is refused, with words that say so."""
    try:
        return read(content, (SIDE, SIDE, 3) if colour else (SIDE, SIDE, 1), Fitting("stretch"))
    except ImageError as error:
        if "not supported" in error.reason or "neither 8 bits" in error.reason:
            return None
        raise


def is_right(found: Decoded, shades: Array, levels: float = 1) -> bool:
    """Whether these are the shades (0 to 1), but for rounding."""
    expected = shades.reshape(SIDE, SIDE, -1) * 255
    return bool((np.abs(found.pixels.reshape(SIDE, SIDE, -1) - expected) <= levels).all())


def over_white(shades: Array, opacity: Array) -> Array:
    return shades * opacity[..., None] + 1 - opacity[..., None]


def is_read(layout: tuple[Any, ...]) -> bool:
    """Which greys of TIFF are read; 8 bits and less in any order of bytes."""
    order, _, bits, form, photometric = layout
    if form == UNSIGNED and bits in {12, 32}:
        return order == "<" and photometric == BLACK_IS_ZERO
    if form == UNSIGNED and bits == 16:
        return order == "<" or photometric == BLACK_IS_ZERO
    if form == UNSIGNED:
        return bits <= 8
    return photometric == BLACK_IS_ZERO and (bits == 32 or (form, bits) == (SIGNED, 16))


def test_greys_of_tiff() -> None:
    integers = itertools.product((1, 2, 4, 8, 12, 16, 32), (UNSIGNED,))
    others = [(8, SIGNED), (16, SIGNED), (32, SIGNED), (16, FLOAT), (32, FLOAT), (64, FLOAT)]
    for order, deflated, (bits, form), photometric in itertools.product(
        "<>", (False, True), [*integers, *others], (WHITE_IS_ZERO, BLACK_IS_ZERO)
    ):
        layout = (order, deflated, bits, form, photometric)
        values = stored(RAMP, bits, form)
        top = stored(np.ones(()), bits, form)
        shades = values / top
        values = top - values if photometric == WHITE_IS_ZERO else values
        content = tiff(
            values[..., None], bits, photometric, order=order, form=form, deflated=deflated
        )
        found = decoded(content, colour=False)
        assert bool(found) == is_read(layout), layout
        if found:
            assert is_right(found, shades), layout
            assert (DEEP in found.changes) == (bits > 8), layout


def test_colours_of_tiff() -> None:
    for order, deflated, bits, planes, extra in itertools.product(
        "<>", (False, True), (8, 16), (False, True), ((), (REST,), (PREMULTIPLIED,), (SEPARATE,))
    ):
        layout = (order, deflated, bits, planes, extra)
        more: dict[str, Any] = {"order": order, "deflated": deflated, "planes": planes}
        colours = COLOURS * OPACITY[..., None] if extra == (PREMULTIPLIED,) else COLOURS
        shades = np.dstack([colours, OPACITY]) if extra else colours
        found = decoded(tiff(stored(shades, bits), bits, RGB, extra=extra, **more))
        assert found, layout
        seen = over_white(COLOURS, OPACITY) if extra in {(PREMULTIPLIED,), (SEPARATE,)} else COLOURS
        # A premultiplied colour of 8 bits is rounded twice.
        assert is_right(found, seen, 2 if extra == (PREMULTIPLIED,) else 1), layout
        assert (DEEP in found.changes) == (bits == 16), layout


def test_inks_and_palettes_of_tiff() -> None:
    inks = np.dstack([COLOURS, RAMP * 0.5])
    seen = (1 - inks[..., :3]) * (1 - inks[..., 3:])
    for order, bits, planes in itertools.product("<>", (8, 16), (False, True)):
        found = decoded(tiff(stored(inks, bits), bits, CMYK, order=order, planes=planes))
        assert found
        assert is_right(found, seen)
    palette = np.random.default_rng(0).integers(0, 2**16, (256, 3))
    indices = np.arange(256).reshape(SIDE, SIDE, 1)
    found = decoded(tiff(indices, 8, PALETTE, palette=palette))
    assert found
    assert is_right(found, (palette / (2**16 - 1))[indices[..., 0]])
    assert not decoded(tiff(indices, 8, PALETTE, palette=palette >> 8))


@pytest.mark.parametrize("form", [SIGNED, FLOAT])
def test_colours_of_tiff_that_are_no_plain_numbers_are_refused(form: int) -> None:
    bits = 16 if form == SIGNED else 32
    content = tiff(stored(COLOURS, bits, form), bits, RGB, form=form)
    with pytest.raises(ImageError, match="damaged, or a kind of TIFF that is not supported"):
        read(content, (SIDE, SIDE, 3), Fitting("stretch"))


@pytest.mark.parametrize(
    ("values", "bits", "form"),
    [
        (RAMP * 100 - 50, 16, SIGNED),
        (RAMP * 100 - 50, 32, SIGNED),
        (RAMP * 70_000, 32, SIGNED),
        (RAMP * 70_000, 32, UNSIGNED),
        (RAMP * 70_000, 32, FLOAT),
    ],
)
def test_greys_on_no_known_scale_are_refused(values: Array, bits: int, form: int) -> None:
    values = values if form == FLOAT else np.rint(values).astype(np.int64)
    with pytest.raises(ImageError, match="grey values from .* are on no known scale"):
        read(
            tiff(values[..., None], bits, BLACK_IS_ZERO, form=form),
            (SIDE, SIDE, 1),
            Fitting("stretch"),
        )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 1 / 3, 1])
def test_one_transparent_grey_of_png(bits: int, share: float) -> None:
    top = 2**bits - 1
    values = stored(RAMP, bits)
    transparent = int(values.flat[round(share * (values.size - 1))])
    found = decoded(png(values[..., None], bits, 0, (transparent,)))
    assert found
    assert is_right(found, np.where(values == transparent, 1, values / top))


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_and_opacity_of_png(bits: int) -> None:
    for colour_type, shades in ((4, RAMP[..., None]), (6, COLOURS)):
        samples = stored(np.dstack([shades, OPACITY]), bits)
        found = decoded(png(samples, bits, colour_type))
        assert found
        assert is_right(found, over_white(shades, OPACITY))
    samples = stored(COLOURS, bits)
    found = decoded(png(samples, bits, 2))
    assert found
    assert is_right(found, COLOURS)
    clear = samples[3, 4]
    found = decoded(png(samples, bits, 2, tuple(clear)))
    assert bool(found) == (bits == 8)
    if found:
        assert is_right(found, np.where((samples == clear).all(2, keepdims=True), 1, COLOURS))


@pytest.mark.parametrize("largest", [1, 15, 255, 1023, 2**16 - 1])
def test_portable_greys_and_colours_of_any_largest_value(largest: int) -> None:
    for kind, shades in (("25", RAMP[..., None]), ("36", COLOURS)):
        samples = np.rint(shades * largest).astype(int)
        plain = " ".join(map(str, samples.ravel())).encode()
        binary = samples.astype(">u2" if largest > 255 else "u1").tobytes()
        for number, data in zip(kind, (plain, binary), strict=True):
            found = decoded(f"P{number} {SIDE} {SIDE} {largest}\n".encode() + data)
            assert found
            assert is_right(found, samples / largest)
            assert (DEEP in found.changes) == (largest > 255)


@pytest.mark.parametrize("green", [5, 6])
def test_pixels_of_16_bits_in_bmp_are_not_deep(green: int) -> None:
    red, green_, blue = (
        np.rint(COLOURS[..., channel] * (2**bits - 1)).astype(int)
        for channel, bits in enumerate((5, green, 5))
    )
    masks = () if green == 5 else (0xF800, 0x07E0, 0x001F)
    found = decoded(bmp(red << 5 + green | green_ << 5 | blue, masks))
    assert found
    assert is_right(found, np.dstack([red / 31, green_ / (2**green - 1), blue / 31]))
    assert found.changes == ()


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "jpeg2000").iterdir()), ids=lambda path: path.name
)
def test_jpeg_2000(path: Path) -> None:
    *signed, kind, bits = path.stem.replace("grey_alpha", "greyalpha").split("_")
    deep_grey = kind == "grey" and int(bits) >= 8
    found = decoded(path.read_bytes())
    assert bool(found) == (not signed and (bits == "8" or deep_grey))
    if found:
        assert is_right(found, COLOURS if kind.startswith("rgb") else RAMP)
        assert (DEEP in found.changes) == (bits != "8")
