"""Image files written byte by byte, in layouts that Pillow does not write."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# TIFF 6.0: SampleFormat, PhotometricInterpretation, and what an extra sample is
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
REST, PREMULTIPLIED, SEPARATE = 0, 1, 2


def stored(shades: Array, bits: int, form: int = UNSIGNED) -> Array:
    """Shades of 0 to 1 as samples of so many bits."""
    if form == FLOAT:
        return shades.astype(f"f{bits // 8}")
    return np.rint(shades * float(2 ** (bits - (form == SIGNED)) - 1)).astype(np.int64)


def packed(rows: Array, bits: int, order: str) -> bytes:
    """Samples (rows x samples), each row padded to whole bytes; order: < or >."""
    if bits % 8:
        single = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        return np.packbits(single.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    kind = "f" if rows.dtype.kind == "f" else "i" if rows.min() < 0 else "u"
    return rows.astype(f"{order}{kind}{bits // 8}").tobytes()


def tiff(
    samples: Array,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    form: int = UNSIGNED,
    planes: bool = False,
    deflated: bool = False,
    extra: tuple[int, ...] = (),
    palette: Array | None = None,
) -> bytes:
    """A TIFF of one strip, or one per plane (TIFF 6.0), of samples (H x W x samples)."""
    height, width, count = samples.shape
    parts = np.moveaxis(samples, 2, 0) if planes else [samples.reshape(height, width * count)]
    strips = [packed(part, bits, order) for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    offsets = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    short, long = (3, "H"), (4, "I")
    entries: dict[int, tuple[tuple[int, str], list[int]]] = {
        256: (long, [width]),
        257: (long, [height]),
        258: (short, [bits] * count),
        259: (short, [8 if deflated else 1]),
        262: (short, [photometric]),
        273: (long, offsets),
        277: (short, [count]),
        278: (long, [height]),
        279: (long, [len(strip) for strip in strips]),
        284: (short, [2 if planes else 1]),
        320: (short, [] if palette is None else palette.T.ravel().tolist()),
        338: (short, list(extra)),
        339: (short, [form] * count),
    }
    entries = {tag: entry for tag, entry in entries.items() if entry[1]}
    data = b"".join(strips)
    directory = 8 + len(data)
    beyond = directory + 2 + 12 * len(entries) + 4
    table, rest = struct.pack(f"{order}H", len(entries)), b""
    for tag, ((kind, code), values) in entries.items():
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        table += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(value) <= 4:
            table += value.ljust(4, b"\0")
        else:
            table += struct.pack(f"{order}I", beyond + len(rest))
            rest += value
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", directory) + data + table + bytes(4) + rest


def png_chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def png(samples: Array, bits: int, colour_type: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of samples (H x W x samples); transparent: the samples of the one such colour."""

    height, width, count = samples.shape
    rows = packed(samples.reshape(height, width * count), bits, ">")
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    mark = (
        png_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
        if transparent
        else b""
    )
    body = mark + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + body


def bmp(pixels: Array, masks: tuple[int, ...] = ()) -> bytes:
    """A BMP of 16 bits a pixel (uint16, H x W, W even), as 5-5-5 or by the masks given."""
    height, width = pixels.shape
    data, fields = pixels[::-1].astype("<u2").tobytes(), struct.pack(f"<{len(masks)}I", *masks)
    start = 54 + len(fields)
    info = (40, width, height, 1, 16, 3 if masks else 0, len(data), 0, 0, 0, 0)
    head = struct.pack("<IHHI", start + len(data), 0, 0, start)
    return b"BM" + head + struct.pack("<IiiHHIIiiII", *info) + fields + data
