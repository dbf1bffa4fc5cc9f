"""Which copies the transform stage finds, and which different images it takes for copies.

    IMAGECLF_TEST_DATA=FOLDER python benchmarks/duplicates.py

FOLDER holds photographs (``cats_dogs`` and ``flowers``, folders of JPEG) and ``mnist``, its IDX
files; what is absent is left out. The other images are drawn: letters and pages of text in
matplotlib's fonts on grey paper, their symbols as icons, hands with some fingers raised, and chests
as on X-rays. No two of a kind are copies, so every pair that is found among them is false.

For each kind, each image and one copy of it are prepared and searched together. Recall is the share
of copies in their original's group. False pairs are counted among the originals alone: pairs in one
group, per million of all pairs.
"""

import gzip
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from imageclf.data.decoding import decode
from imageclf.preparation.duplicates import same_images
from imageclf.preparation.hashing import thumbnail
from imageclf.sections import Fitting

Picture = Image.Image
Generator = np.random.Generator
FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts/ttf").glob("DejaVuS*.ttf"))
SIDE = 160  # pixels of the images that are drawn
SYMBOLS = [*range(0x2190, 0x2400), *range(0x25A0, 0x27C0), *range(0x2900, 0x2B50)]
MISSING = "\U0010fffe"


def saved(image: Picture, kind: str = "JPEG", **options: int) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def cropped(image: Picture, generator: Generator) -> Picture:
    """95 % of the width and of the height, at a place drawn at random."""
    width, height = image.size
    part = round(0.95 * width), round(0.95 * height)
    left, top = generator.integers(0, (width - part[0] + 1, height - part[1] + 1))
    return image.crop((left, top, left + part[0], top + part[1]))


COPIES: dict[str, Callable[[Picture, Generator], bytes]] = {
    "JPEG 75": lambda image, _: saved(image, quality=75),
    "JPEG 30": lambda image, _: saved(image, quality=30),
    "JPEG 10": lambda image, _: saved(image, quality=10),
    "WebP 40": lambda image, _: saved(image, "WEBP", quality=40),
    "half the size": lambda image, _: saved(ImageOps.scale(image, 0.5), quality=85),
    "cropped by 5 %": lambda image, generator: saved(cropped(image, generator), quality=90),
    "mirrored": lambda image, _: saved(ImageOps.mirror(image), quality=90),
    "brightness x 1.3": lambda image, _: saved(ImageEnhance.Brightness(image).enhance(1.3)),
    "brightness x 0.7": lambda image, _: saved(ImageEnhance.Brightness(image).enhance(0.7)),
}


def on_paper(ink: Picture, generator: Generator) -> Picture:
    """What is drawn on white, on paper that is lit from a side and has some grain."""
    slope = np.linspace(-6, 6, SIDE)
    paper = 235 + slope * generator.normal() + slope[:, None] * generator.normal()
    paper += generator.normal(0, 4, (SIDE, SIDE))
    return Image.fromarray(np.minimum(np.asarray(ink), paper.clip(0, 255)).astype(np.uint8))


def written(generator: Generator, words: list[str], size: tuple[int, int], tilt: float) -> Picture:
    """Lines of text in a font, of a size in pixels and turned by some degrees, all at random."""
    ink = Image.new("L", (SIDE, SIDE), 255)
    font = ImageFont.truetype(str(generator.choice(FONTS)), int(generator.integers(*size)))
    place = (SIDE / 2 + generator.integers(-9, 9), SIDE / 2 + generator.integers(-9, 9))
    shade = int(generator.integers(10, 60))
    draw = ImageDraw.Draw(ink)
    draw.multiline_text(place, "\n".join(words), shade, font, anchor="mm", spacing=12)
    return on_paper(ink.rotate(generator.normal(0, tilt), fillcolor=255), generator)


def letter(generator: Generator) -> Picture:
    return written(generator, [chr(65 + generator.integers(26))], (80, 120), 4)


def page(generator: Generator) -> Picture:
    words = ["".join(map(chr, 97 + generator.integers(0, 26, 7))) for _ in range(4)]
    return written(generator, words, (22, 32), 1.5)


def hand(generator: Generator) -> Picture:
    """A lit hand before a wall: an arm, a palm and five fingers, some of them raised."""
    image = Image.new("L", (SIDE, SIDE), int(generator.integers(150, 200)))
    draw = ImageDraw.Draw(image)
    skin = int(generator.integers(60, 130))
    x, y = generator.normal((SIDE * 0.5, SIDE * 0.66), 5)
    width = SIDE * 0.19 * generator.normal(1, 0.06)
    draw.rectangle((x - width * 0.6, y, x + width * 0.6, SIDE), skin)
    draw.ellipse((x - width, y - width * 1.1, x + width, y + width * 1.1), skin)
    for finger, raised in enumerate(generator.random(5) < 0.5):
        angle = math.radians(-90 + (finger - 2) * generator.normal(16, 2) - 25 * (finger == 0))
        length = SIDE * (0.42 if raised else 0.2) * generator.normal(1, 0.06)
        begin = np.array((x + width * 0.75 * (finger - 2) / 2, y - width * 0.6))
        end = begin + length * np.array((math.cos(angle), math.sin(angle)))
        draw.line((*begin, *end), skin + int(generator.integers(-8, 8)), int(width * 0.38))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(2.5)))
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    light = 1 + 0.25 * (generator.normal() * right + generator.normal() * down)
    grain = generator.normal(0, 2, pixels.shape)
    return Image.fromarray((pixels * light + grain).clip(0, 255).astype(np.uint8))


def x_ray(generator: Generator) -> Picture:
    """A chest: a bright spine and heart, dark lungs, ribs of low contrast, and some grain."""
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5

    def spot(x: float, y: float, width: float, height: float, power: int = 2) -> np.ndarray:
        x, y, width, height = generator.normal((x, y, width, height), 0.012)
        distance = np.abs((right - x) / width) ** power + np.abs((down - y) / height) ** power
        return np.exp(-distance)

    lungs = spot(-0.2, -0.02, 0.14, 0.28, 4) + spot(0.2, -0.02, 0.13, 0.28, 4)
    arcs = down + generator.normal(0, 0.02) + generator.normal(1.2, 0.1) * right**2
    ribs = np.cos(2 * np.pi * arcs / generator.normal(0.085, 0.003)) * spot(0, 0, 0.38, 0.38, 6)
    chest = 90 + 40 * spot(0, 0, 0.06, 0.7, 4) - generator.normal(55, 6) * lungs
    chest += 35 * spot(0.08, 0.15, 0.11, 0.13) + 9 * ribs + generator.normal(0, 2, chest.shape)
    image = Image.fromarray(chest.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(1))


def icons(_: int) -> Iterator[Picture]:
    """The symbols of a font, each once, in one colour on another."""
    font = ImageFont.truetype(str(next(path for path in FONTS if path.stem == "DejaVuSans")), 110)
    nothing = bytes(font.getmask(MISSING))
    for code in SYMBOLS:
        mask = font.getmask(chr(code))
        if mask.getbbox() and bytes(mask) != nothing:
            generator = np.random.default_rng(code)
            image = Image.new("RGB", (SIDE, SIDE), tuple(generator.integers(200, 256, 3).tolist()))
            ink = tuple(generator.integers(0, 150, 3).tolist())
            ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), chr(code), ink, font, anchor="mm")
            yield image


def drawn(draw: Callable[[Generator], Picture]) -> Callable[[int], Iterator[Picture]]:
    return lambda count: (draw(np.random.default_rng(number)) for number in range(count))


def photographs(folder: Path) -> Callable[[int], Iterator[Picture]]:
    """Photographs, spread over the folder, smaller than they are so that all fit in memory."""

    def opened(count: int) -> Iterator[Picture]:
        paths = sorted(folder.rglob("*.jpg"))
        for path in paths[:: max(1, len(paths) // count)][:count]:
            image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            image.thumbnail((500, 500))
            yield image

    return opened


def digits(folder: Path) -> Callable[[int], Iterator[Picture]]:
    content = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    return lambda count: map(Image.fromarray, pixels[:count])


def kinds() -> dict[str, Callable[[int], Iterator[Picture]]]:
    found = {
        "letters": drawn(letter),
        "pages of text": drawn(page),
        "icons": icons,
        "hand signs": drawn(hand),
        "X-rays": drawn(x_ray),
    }
    data = Path(os.environ.get("IMAGECLF_TEST_DATA", "/nonexistent"))
    if (data / "mnist").exists():
        found = {"MNIST": digits(data / "mnist")} | found
    for name in ("flowers", "cats_dogs"):
        if (data / name).exists():
            found = {name: photographs(data / name)} | found
    return found


def groups(contents: list[bytes], side: int, colour: bool) -> np.ndarray:
    shape = (side, side, 3 if colour else 1)
    images = [decode(content, shape, Fitting("crop")) for content in contents]
    thumbnails = np.stack([thumbnail(image) for image in images])
    digests = [str(number) for number in range(len(images))]
    return same_images(digests, thumbnails, side, lambda numbers: (images[i] for i in numbers))


def false_pairs(found: np.ndarray) -> int:
    sizes = np.bincount(found)
    return int((sizes * (sizes - 1) // 2).sum())


@click.command(help=__doc__)
@click.option("--count", default=1000, show_default=True, help="Images of each kind, at most.")
@click.option("--side", "sides", default=[64], multiple=True, show_default=True)
@click.option("--kind", "chosen", multiple=True, help="Of the table's rows, those wanted; or all.")
@click.option("--no-copies", is_flag=True, help="Count the false pairs alone.")
def main(count: int, sides: tuple[int, ...], chosen: tuple[str, ...], no_copies: bool) -> None:
    copies = {} if no_copies else COPIES
    click.echo(
        " | ".join(["| kind", "images", "side", "false pairs", "per million", "s", *copies, ""])
    )
    for name, make in kinds().items():
        if chosen and name not in chosen:
            continue
        images = list(make(count))
        originals = [saved(image, "PPM") for image in images]
        generator = np.random.default_rng(0)
        others = [[copy(image, generator) for image in images] for copy in copies.values()]
        for side in sides:
            colour = images[0].mode == "RGB"
            started = time.perf_counter()
            false = false_pairs(groups(originals, side, colour))
            seconds = time.perf_counter() - started
            recalls = []
            for contents in others:
                found = groups([*originals, *contents], side, colour)
                recalls.append((found[: len(images)] == found[len(images) :]).mean())
            pairs = len(images) * (len(images) - 1) / 2
            row = [
                f"| {name}",
                f"{len(images):,}",
                str(side),
                str(false),
                f"{false / pairs * 1e6:.2f}",
            ]
            shares = [f"{recall:.1%}" for recall in recalls]
            click.echo(" | ".join([*row, f"{seconds:.1f}", *shares, ""]))


if __name__ == "__main__":
    main()
