import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from helpers.image_bytes import png, png_chunk
from helpers.images import photograph
from helpers.real_data import REAL_DATA, needs
from imageclf.data.decoding import (
    decode,
    find_images,
    has_colour,
    read,
    resized,
)
from imageclf.data.opening import MAX_PIXELS, ImageError
from imageclf.sections import Fit, Fitting, Interpolation

BAD = REAL_DATA / "bad_inputs"
ODD = BAD / "odd_but_readable"
needs_bad_inputs = needs("bad_inputs")

RAMP = np.arange(64 * 64, dtype=np.float64).reshape(64, 64) / (64 * 64 - 1)
RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
# What brings the stored pixels of each EXIF orientation upright, in numpy's terms.
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def stored(path: Path) -> NDArray[Any]:
    """The pixels as Pillow hands them over: no orientation, no conversion."""
    with Image.open(path) as image:
        return np.asarray(image)


def palette(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The colours (N x 3) and opacities (N, 0..1) of a palette image."""
    with Image.open(path) as image:
        colours = np.array(image.getpalette(), dtype=float).reshape(-1, 3)
        transparency = image.info.get("transparency", b"")
    alpha = np.full(len(colours), 255.0)
    if isinstance(transparency, int):
        alpha[transparency] = 0
    else:
        alpha[: len(transparency)] = list(transparency)
    return colours, alpha / 255


def over_white(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    return colours * alpha[..., None] + 255 * (1 - alpha[..., None])


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest, of an image that was decoded and one that may be grey without an axis for it."""
    other = np.atleast_3d(other)
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other).max())


@needs_bad_inputs
@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize(
    ("scene", "shape"), [("Landscape", (120, 180, 3)), ("Portrait", (180, 120, 3))]
)
def test_every_orientation_comes_out_upright(
    scene: str, shape: tuple[int, ...], orientation: int
) -> None:
    folder = BAD / "exif_orientation"
    upright = decode(folder / f"{scene}_1.jpg", shape).astype(float)
    turned = decode(folder / f"{scene}_{orientation}.jpg", shape)
    # The files differ by JPEG noise and by the digit written in the middle.
    assert np.abs(turned - upright).mean() < 2
    for wrong in (upright[::-1], upright[:, ::-1], upright[::-1, ::-1]):
        assert np.abs(turned - wrong).mean() > 10


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_orientation_is_applied_whatever_the_format(kind: str, orientation: int) -> None:
    pixels = np.array([[0, 80, 160], [240, 40, 120]], dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"TIFF": {}, "PNG": {}}.get(kind, {"quality": 100})
    content = encoded(Image.fromarray(pixels), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](pixels)
    assert difference(decode(content, np.atleast_3d(expected).shape), expected) <= 3


@needs_bad_inputs
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken.png", "damaged, or a kind of PNG that is not supported"),
        ("decompression_bomb.gif", "more than 89,478,485 pixels"),
        ("gitlfs_pointer_cloudy1.jpg", "a Git LFS pointer .* `git lfs pull`"),
        ("gitlfs_pointer_cloudy100.jpg", "a Git LFS pointer .* `git lfs pull`"),
        ("l2rgb_read.bmp", "more than 89,478,485 pixels"),
        ("truncated_image.png", "cut short"),
        ("truncated_jpeg.jpg", "cut short"),
        ("ultrahdr.jpg", "cut short"),
        ("unknown_compression_method.png", "damaged, or a kind of PNG"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_reason(name: str, reason: str) -> None:
    path = BAD / "unreadable" / name
    with pytest.raises(ImageError, match=reason) as caught:
        decode(path, (28, 28, 1))
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@needs_bad_inputs
def test_no_unreadable_file_is_left_out_here() -> None:
    assert len(list((BAD / "unreadable").iterdir())) == 9
    assert len(list(ODD.iterdir())) == 10


@needs_bad_inputs
@pytest.mark.parametrize(
    "name",
    [
        "exif_typeerror.jpg",
        "hopper_16bit_qtables.jpg",
        "palette_sepia.png",
        "tiff_16bit_RGB_target.png",
    ],
)
def test_odd_headers_leave_the_colours_alone(name: str) -> None:
    expected = stored(ODD / name)
    assert difference(decode(ODD / name, np.atleast_3d(expected).shape), expected) == 0


@needs_bad_inputs
def test_a_file_with_broken_exif_is_read_as_if_it_had_none() -> None:
    grey = stored(ODD / "hopper_bad_exif.jpg")
    assert grey.ndim == 2
    assert difference(decode(ODD / "hopper_bad_exif.jpg", np.atleast_3d(grey).shape), grey) == 0
    green = np.broadcast_to([0, 128, 0], (100, 100, 3))
    assert difference(decode(ODD / "broken_exif_dpi.jpg", np.atleast_3d(green).shape), green) <= 1


@needs_bad_inputs
def test_the_orientation_that_imagemagick_writes_into_a_png_counts() -> None:
    path = ODD / "exif_imagemagick_orientation.png"
    expected = np.rot90(stored(path), 2)
    assert difference(decode(path, np.atleast_3d(expected).shape), expected) == 0


@needs_bad_inputs
def test_cmyk_is_ink_on_white_paper() -> None:
    path = ODD / "pil_sample_cmyk.jpg"
    cmyk = stored(path).astype(float)
    expected = (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255
    assert difference(decode(path, np.atleast_3d(expected).shape), expected) <= 1


@needs_bad_inputs
@pytest.mark.parametrize("name", ["hymenoptera_imageNotFound.gif", "pil123p.png"])
def test_a_palette_is_looked_up_and_its_transparency_laid_over_white(name: str) -> None:
    colours, alpha = palette(ODD / name)
    expected = over_white(colours, alpha)[stored(ODD / name)]
    assert difference(decode(ODD / name, np.atleast_3d(expected).shape), expected) <= 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.uint16), "PPM"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
        ((RAMP * (2**31 - 1)).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 65535).astype(np.float32), "TIFF"),
    ],
)
def test_greys_of_16_and_32_bits_keep_their_shades(values: NDArray[Any], kind: str) -> None:
    content = encoded(Image.fromarray(values), kind)
    assert difference(decode(content, (64, 64, 1)), RAMP * 255) <= 1
    colour = decode(content, (64, 64, 3))
    assert difference(colour, np.repeat(RAMP[..., None] * 255, 3, axis=2)) <= 1


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_a_dark_image_of_16_bits_stays_dark(kind: str) -> None:
    content = encoded(Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)), kind)
    assert decode(content, (8, 8, 1)).max() == 1


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_greys_on_no_known_scale_are_refused(value: float) -> None:
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0, 0] = value
    with pytest.raises(ImageError, match="on no known scale"):
        decode(encoded(Image.fromarray(values), "TIFF"), (8, 8, 1))


def test_one_bit_is_black_and_white() -> None:
    bits = np.indices((16, 16)).sum(axis=0) % 2 == 0
    content = encoded(Image.fromarray(bits))
    assert difference(decode(content, (16, 16, 1)), bits * 255) == 0


@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_pixels_show_white(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, channels)).astype(np.uint8)
    pixels[:8, :8, -1] = 0
    content = encoded(Image.fromarray(pixels))
    colours, alpha = pixels[..., :-1].astype(float), pixels[..., -1] / 255
    expected = np.broadcast_to(over_white(colours, alpha), (16, 16, 3))
    found = decode(content, (16, 16, 3))
    assert difference(found, expected) <= 1
    assert (found[:8, :8] == 255).all()
    luma = expected @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert difference(decode(content, (16, 16, 1)), luma) <= 2


def test_one_transparent_colour_shows_white() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0] = (255, 0, 0)
    content = encoded(Image.fromarray(pixels), transparency=(255, 0, 0))
    expected = pixels.copy()
    expected[0] = 255
    assert difference(decode(content, (4, 4, 3)), expected) == 0


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 200, 90)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(content, (8, 8, 1)) == 10).all()


def test_a_file_and_its_content_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(RGB)))
    from_file = decode(path, (20, 30, 3))
    assert difference(from_file, RGB) == 0
    assert difference(decode(path.read_bytes(), [20, 30, 3]), RGB) == 0
    assert from_file.flags.writeable
    assert from_file.dtype == np.uint8


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_centre_is_cut_out(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    centre = ((size[0] - 10) // 2, (size[1] - 10) // 2)
    image.paste("blue", ((size[0] - 20) // 2, (size[1] - 20) // 2, *(s // 2 + 10 for s in size)))
    image.paste("lime", (*centre, centre[0] + 10, centre[1] + 10))
    found = decode(encoded(image), (20, 20, 3))
    assert (found[5:15, 5:15] == (0, 255, 0)).all()
    assert (found[0] == (0, 0, 255)).all()
    assert not (found == (255, 0, 0)).all(axis=2).any()


def test_shrinking_averages_and_skips_nothing() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    # One that skips would give 0 or 255.
    assert (
        difference(decode(encoded(Image.fromarray(stripes)), (8, 8, 1)), np.full((8, 8), 128)) < 8
    )
    smooth = (RAMP * 255).astype(np.uint8)
    means = smooth.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    found = decode(encoded(Image.fromarray(smooth)), (16, 16, 1))
    assert difference(found[2:-2, 2:-2], means[2:-2, 2:-2]) <= 2


def test_enlarging_is_smooth() -> None:
    small = np.array([[0, 255]], dtype=np.uint8).repeat(2, axis=0)
    row = decode(encoded(Image.fromarray(small)), (16, 16, 1))[8].ravel().astype(int)
    assert (np.diff(row) >= 0).all()
    assert len(np.unique(row)) > 6


def test_a_square_is_resized_as_the_transform_stage_does() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (28, 28, 1)).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0])
    for side in (8, 14, 40):
        assert difference(decode(encoded(image), (side, side, 1)), resized(pixels, side, side)) == 0


PILLOW_FITS: dict[Fit, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "crop": lambda image, size: ImageOps.fit(
        image, size, Image.Resampling.BILINEAR, (1 - 224 / 255) / 2
    ),
    "fill": lambda image, size: ImageOps.fit(image, size, Image.Resampling.BICUBIC),
    "pad": lambda image, size: ImageOps.pad(image, size, Image.Resampling.BILINEAR),
    "stretch": lambda image, size: image.resize(size, Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("fit", PILLOW_FITS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("shape", [(120, 90), (64, 64), (31, 70)])
def test_every_fit_is_pillows_to_a_few_levels(fit: Fit, mode: str, shape: tuple[int, int]) -> None:
    image = photograph(7, 301, 200).convert(mode)
    expected = np.asarray(PILLOW_FITS[fit](image, shape[::-1]))
    found = read(encoded(image), np.atleast_3d(expected).shape, Fitting(fit)).pixels
    assert difference(found, expected) <= 3
    assert np.abs(found.astype(float) - np.atleast_3d(expected)).mean() < 0.5


@pytest.mark.parametrize(("name", "crop"), [("bicubic", 0.8), ("bilinear", 0.8), ("bicubic", 1)])
def test_a_networks_own_crop_is_as_timm_does_it(name: Interpolation, crop: float) -> None:
    """The shorter side to 64 / crop, then the centre; here both are whole pixels."""
    image = photograph(7, 300, 200)
    height, width = round(64 / crop), round(96 / crop)
    scaled = np.asarray(image.resize((width, height), Image.Resampling[name.upper()]))
    top, left = (height - 64) // 2, (width - 64) // 2
    expected = scaled[top : top + 64, left : left + 64]
    found = decode(encoded(image), (64, 64, 3), Fitting("crop", name, crop))
    assert difference(found, expected) <= 3
    assert difference(decode(encoded(image), (64, 64, 3), Fitting("crop")), expected) > 3


@needs("flowers")
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_fast_way_through_jpeg_gives_pillows_pixels(mode: str) -> None:
    for path in sorted((REAL_DATA / "flowers").glob("*/*.jpg"))[::20]:
        with Image.open(path) as image:
            image.draft(mode, image.size)
            expected = np.asarray(image)
        assert difference(decode(path, np.atleast_3d(expected).shape), expected) == 0


@needs("flowers")
@pytest.mark.parametrize("shape", [(28, 28, 1), (16, 16, 3)])
def test_a_jpeg_decoded_at_a_fraction_is_the_same_but_for_a_few_levels(
    shape: tuple[int, ...],
) -> None:
    for path in sorted((REAL_DATA / "flowers").glob("*/*.jpg"))[::20]:
        with Image.open(path) as image:
            whole = image.convert("RGB" if shape[2] == 3 else "L")
        found, expected = decode(path, shape), decode(encoded(whole), shape)
        assert 0 < np.abs(found.astype(float) - expected).mean() < 0.7
        assert difference(found, expected) <= 13


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


@pytest.mark.parametrize("height", [MAX_PIXELS // 10_000 + 1, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(height: int) -> None:
    with pytest.raises(ImageError, match="more than 89,478,485 pixels"):
        decode(png_header(10_000, height), (28, 28, 1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not an image"),
        (png_header(100, 100), "cut short"),
        (encoded(Image.fromarray(RGB))[:-200], "cut short"),
        (encoded(Image.fromarray(RGB), "TIFF")[:-200], "cut short"),
        (encoded(Image.fromarray(RGB), "WEBP")[:-100], "damaged"),
    ],
)
def test_bytes_that_are_no_whole_image_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"^image: {reason}") as caught:
        decode(content, (28, 28, 1))
    assert caught.value.path is None


def test_paths_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nothing.png: no such file"):
        decode(tmp_path / "nothing.png", (28, 28, 1))
    with pytest.raises(ImageError, match="is a directory"):
        decode(tmp_path, (28, 28, 1))


def test_damaged_files_are_refused_or_read_and_nothing_else() -> None:
    generator = np.random.default_rng(3)
    read, refused = 0, []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        content = np.frombuffer(encoded(Image.fromarray(RGB), kind), dtype=np.uint8)
        for _ in range(60):
            damaged = content.copy()
            places = generator.integers(0, min(len(content), 300), 5)
            damaged[places] = generator.integers(0, 256, 5)
            try:
                assert decode(damaged.tobytes(), (8, 8, 3)).shape == (8, 8, 3)
                read += 1
            except ImageError as error:
                refused.append(error.reason)
    assert read > 50
    assert len(refused) > 50
    assert not [reason for reason in refused if not reason or "\n" in reason]


@needs_bad_inputs
def test_pillow_warns_nobody_and_other_warnings_stay_as_they_were() -> None:
    path = ODD / "hopper_bad_exif.jpg"
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
        image.getexif()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(decode, [path] * 40, [(28, 28, 1)] * 40))
        assert warnings.filters == before
    assert not caught
    assert all((image == images[0]).all() for image in images)


def test_images_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    names = ["b/2.PNG", "b/10.jpeg", "a.tif", "b/c/d.webp"]
    others = ["notes.txt", "b/.hidden.png", ".thumbnails/a.png", "b/._2.png", "png"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == sorted(tmp_path / name for name in names)


def test_images_behind_links_are_found_but_not_round_a_loop(tmp_path: Path) -> None:
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "photos/a/1.png").touch()
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched/cats").symlink_to(tmp_path / "photos/a")
    (tmp_path / "photos/a/loop").symlink_to(tmp_path / "photos")
    (tmp_path / "searched/gone.png").symlink_to(tmp_path / "nothing")
    assert find_images(tmp_path / "searched") == [tmp_path / "searched/cats/1.png"]


@pytest.mark.parametrize(("width", "height"), [(640, 480), (300, 451), (224, 224)])
def test_crop_is_resize_255_and_centre_crop_224(width: int, height: int) -> None:
    from torchvision.transforms.v2 import functional

    image = photograph(3, width, height)
    resized = functional.resize(image, [255], functional.InterpolationMode.BILINEAR)
    expected = np.asarray(functional.center_crop(resized, [224, 224]))
    found, filled = (
        decode(encoded(image), (224, 224, 3), fitting).astype(int)
        for fitting in (Fitting("crop"), Fitting("fill"))
    )
    # torchvision rounds the place of the crop, here 15.5 pixels from the side.
    assert np.abs(found - expected).mean() < 2
    assert np.abs(filled - expected).mean() > 8


def test_pad_keeps_the_whole_image_between_black_bars() -> None:
    found = decode(encoded(Image.new("RGB", (40, 20), "red")), (20, 20, 3), Fitting("pad"))
    assert (found[5:15] == (255, 0, 0)).all()
    assert (found[:5] == 0).all()
    assert (found[15:] == 0).all()


def test_stretch_keeps_every_corner() -> None:
    image = Image.fromarray(np.array([[10, 90, 170], [60, 140, 250]], dtype=np.uint8))
    found = decode(encoded(image.resize((60, 20), 0)), (30, 30, 1), Fitting("stretch"))
    corners = found[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.ravel().tolist() == [10, 170, 60, 250]


def test_colours_of_16_bits_are_scaled() -> None:
    rgb = np.random.default_rng(5).integers(0, 2**16, (12, 12, 3)).astype(np.uint16)
    found = read(png(rgb, 16, 2), (12, 12, 3), Fitting("fill"))
    assert difference(found.pixels, rgb / 257) <= 1
    assert found.changes == ("more than 8 bits scaled to 8",)


def test_what_was_changed_is_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = encoded(Image.new("L", (30, 20), 90), exif=exif)
    found = read(grey, (8, 8, 3), Fitting("fill"))
    assert (found.height, found.width) == (30, 20)
    assert found.changes == ("turned upright", "grey to RGB")
    plain = read(encoded(photograph(1), "JPEG"), (8, 8, 3), Fitting("crop"))
    assert (plain.height, plain.width, plain.changes) == (72, 96, ())
    # Decoded at a fraction, and still told in full.
    large = read(encoded(photograph(1, 4000, 3000), "JPEG"), (8, 8, 3), Fitting("crop"))
    assert (large.height, large.width) == (3000, 4000)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4)), False),
        (Image.new("1", (4, 4)), False),
        (Image.new("LA", (4, 4)), False),
        (Image.new("I;16", (4, 4)), False),
        (Image.new("RGB", (4, 4)), True),
        (Image.new("P", (4, 4)), True),
    ],
)
def test_a_header_tells_whether_there_is_colour(image: Image.Image, expected: bool) -> None:
    assert has_colour(encoded(image)) is expected
    assert has_colour(b"no image") is False
