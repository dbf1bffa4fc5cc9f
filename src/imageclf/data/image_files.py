"""Which files are images: the formats that are read, and the files that systems add."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """An image format: its name in Pillow, its suffixes, and how its files begin."""

    name: str
    suffixes: tuple[str, ...]
    start: re.Pattern[bytes]


def _format(name: str, suffixes: str, start: bytes) -> Format:
    return Format(name, tuple(suffixes.split()), re.compile(start, re.DOTALL))


# The decoder opens only these. Pillow reads MPO as a kind of JPEG.
FORMATS = (
    _format("JPEG", ".jpeg .jpg .jpe .jfif .jif .mpo", rb"\xff\xd8\xff"),
    _format("PNG", ".png .apng", rb"\x89PNG\r\n\x1a\n"),
    _format("GIF", ".gif", rb"GIF8[79]a"),
    _format("WEBP", ".webp", rb"RIFF.{4}WEBP"),
    _format("AVIF", ".avif", rb".{4}ftypavi[fs]"),
    _format(
        "JPEG2000",
        ".jp2 .j2k .j2c .jpc .jpf .jpx",
        rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    ),
    # The header holds its own length, which differs by the version of BMP.
    _format("BMP", ".bmp", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00"),
    _format("TIFF", ".tif .tiff", rb"II[*+]\x00|MM\x00[*+]"),
    _format("PPM", ".pbm .pgm .ppm .pnm", rb"P[1-6]\s(?:#[^\n]*\n|\s)*\d+\s"),
)
IMAGE_SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
# Images that the decoder refuses: the user is told.
OTHER_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".psb", ".xcf", ".svg", ".ico", ".tga"),
    *(".dds", ".exr", ".hdr", ".pcx", ".sgi", ".qoi", ".dcm", ".fits", ".raw", ".dng", ".cr2"),
    *(".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)
_OTHER_START = re.compile(
    rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)|\xff\x0a|\x00\x00\x00\x0cJXL |8BPS\x00[\x01\x02]",
    re.DOTALL,
)
START = 64  # bytes of a file that tell its format

# Files that systems and programs add, in lower case. Names that begin with a dot (.DS_Store, ._*,
# .git, .ipynb_checkpoints, .Trash-1000) are left out in any case.
# Sources: https://github.com/github/gitignore, Global/{macOS,Windows,Linux}.gitignore;
# Synology and QNAP of their NAS (@eaDir, #recycle, #snapshot, @Recycle, .@__thumb).
LITTER = {
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("$recycle.bin", "recycler", "system volume information", "desktop.ini"),
    *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "picasa.ini"),
    *("lost+found", "@eadir", "#recycle", "#snapshot", "@recycle", "@tmp"),
}


def is_image(name: str) -> bool:
    """Whether a file's name has a suffix of a format that is read, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_other_image(name: str, start: bytes) -> bool:
    """Whether a file's name or first START bytes are those of an image format that is not read.

    Call ``begins_as_image`` first: some raw formats of cameras begin as TIFF.
    """
    return name.lower().endswith(OTHER_SUFFIXES) or bool(_OTHER_START.match(start))


def begins_as_image(start: bytes) -> bool:
    """Whether the first START bytes of a file are those of a format that is read."""
    return any(known.start.match(start) for known in FORMATS)


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name (not a path) is not the user's own."""
    return name.startswith(".") or name.lower() in LITTER
