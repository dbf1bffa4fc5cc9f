"""Text that comes from data, such as the names of classes and files, made safe to be shown."""

import io
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Joiners are part of words in Persian and in Indian languages, and of many emoji.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
# What a spreadsheet takes for the beginning of a formula:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# A password before the host, or a value in the query whose name says that it is a secret.
_SECRET = re.compile(
    r"//[^/?#@]*:[^/?#]*@|[?&][^=&#]*(token|secret|password|passwd|signature|\bsig|credential|key)"
    r"[^=&#]*=",
    re.IGNORECASE,
)
_MODEL_NAME = re.compile(r"\w([\w .,()'+-]*[\w.,()'+-])?")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def printable(text: object) -> str:
    r"""The text on one line, without what a terminal obeys: ``\n`` and ``\x1b`` as Python has them.

    Letters of any script, spaces of any width and joiners stay.
    """
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in str(text))


def unicode_text(text: str) -> str:
    r"""The text; a ValueError if UTF-8 cannot hold it, as with ``\ud800``, half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} is no text that UTF-8 can hold") from None
    return text


def public_address(address: str) -> str:
    """The address; a ValueError if it holds a password or a token."""
    if _SECRET.search(address):
        raise ValueError(
            "the address holds a password or a token, which git, DVC and MLflow would keep: write "
            "user and password to ~/.netrc, or download the file and name its path"
        )
    return address


def model_name(name: str) -> str:
    """The name; a ValueError if MLflow, a folder or the address of a model cannot have it."""
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a model: use letters, digits, spaces and _.,()'+-, with a "
            "letter or digit first"
        )
    return name


def escape_what_the_terminal_lacks() -> None:
    """Print what the terminal's encoding lacks as Python escapes it, so that no print fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: ``'`` stands before a text that begins so.

    Numbers stay as they are, also those that are text.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_cells(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with ``csv_cell`` of each text and of the names of its columns."""
    texts = table.select_dtypes(exclude="number")
    safe = {name: texts[name].map(csv_cell) for name in texts}
    return table.assign(**safe).rename(columns=csv_cell)


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
