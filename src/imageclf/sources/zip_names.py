"""The names of the files in a zip, whatever their encoding.

A flag marks a name as UTF-8. Without it the name should be code page 437 (APPNOTE.TXT of PKWARE,
appendix D), but programs also write the code page of the user, or UTF-8 without the flag.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

UTF8 = 1 << 11  # the flag
UNICODE_PATH = 0x7075  # the extra field of Info-ZIP
# Kana, kanji, and the punctuation and full-width letters between them.
JAPANESE = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e]+")
KANA = re.compile(r"[\u3041-\u30ff]")
# The common kanji, level 1 of JIS X 0208, begin with these bytes.
COMMON = range(0x88, 0x99)


def decoded_names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of files in a zip that was opened without an encoding.

    Unmarked names are UTF-8 or Japanese (cp932) if all of them can be, else code page 437 if that
    gives letters. Otherwise their bytes are kept as ``%XX``, so that names stay different.
    """
    unmarked = [_raw(info) for info in infos if not _is_certain(info)]
    encoding = next((name for name, fits in ENCODINGS.items() if all(map(fits, unmarked))), "")
    return [
        (_unicode_path(info) or info.filename)
        if _is_certain(info)
        else _raw(info).decode(encoding)
        if encoding
        else _escaped(_raw(info))
        for info in infos
    ]


def _raw(info: zipfile.ZipInfo) -> bytes:
    return info.filename.encode("cp437")  # has a character for every byte


def _is_certain(info: zipfile.ZipInfo) -> bool:
    return bool(info.flag_bits & UTF8 or info.filename.isascii() or _unicode_path(info))


def _unicode_path(info: zipfile.ZipInfo) -> str:
    """The name in UTF-8 from an extra field, if the field was made for this name."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == UNICODE_PATH and size > 5 and not info.flag_bits & UTF8:
            checksum = int.from_bytes(extra[5:9], "little")
            if checksum == zlib.crc32(_raw(info)):
                return extra[9 : 4 + size].decode(errors="replace")
        extra = extra[4 + size :]
    return ""


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_japanese(raw: bytes) -> bool:
    """Whether the name has Japanese words, not European ones that happen to have such bytes."""
    try:
        name = raw.decode("cp932")
    except UnicodeDecodeError:
        return False
    for word in re.findall(r"[^\W\d_]+", name):
        if not word.isascii() and not JAPANESE.fullmatch(word):
            return False
    words = JAPANESE.findall(name)
    common = all(char.encode("cp932")[0] in COMMON for word in words for char in word)
    return len("".join(words)) == sum(not char.isascii() for char in name) and (
        common or bool(KANA.search(name))
    )


def _is_of_letters(raw: bytes) -> bool:
    return all(char.isascii() or char.isalpha() for char in raw.decode("cp437"))


def _escaped(raw: bytes) -> str:
    return "".join(
        chr(byte) if byte < 0x80 and byte != ord("%") else f"%{byte:02X}" for byte in raw
    )


ENCODINGS = {"utf-8": _is_utf8, "cp932": _is_japanese, "cp437": _is_of_letters}
