"""What a terminal and a spreadsheet are given of a text that came from elsewhere."""

import io
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from imageclf.commands.common import columns, lines
from imageclf.files import UserError
from imageclf.text import csv_cell, csv_cells, printable

OBEYED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, ends of lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x1b[2J\x07\x9b31m\x00", r"\x1b[2J\x07\x9b31m\x00"),
        ("\u202eback\u2066\u2028", r"\u202eback\u2066\u2028"),
        ("\udcff.png", r"\udcff.png"),
        (
            "猫 Käse\xa0\u3000 क्\u200dष 👩\u200d🚀",
            "猫 Käse\xa0\u3000 क्\u200dष 👩\u200d🚀",
        ),
    ],
)
def test_a_text_is_one_line_without_what_a_terminal_obeys(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(UserError(text)) == shown


@given(st.text(st.characters()))
def test_no_text_is_obeyed(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(char) for char in shown} & OBEYED
    assert printable(shown) == shown
    assert "\n" not in shown


def test_rows_and_lines_keep_one_line_for_each_text() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(columns([("title", "a\nb\x1b[2J"), ("other", lines("x\r", "y"))]))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in printed.splitlines()] == [
        r"title  a\nb\x1b[2J",
        r"other  x\r",
        "       y",
    ]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\N{FULLWIDTH EQUALS SIGN}1", "-"],
)
def test_no_text_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["cat", "", "a=b", "-5", "+3.25", -5, -0.5, None, True])
def test_numbers_and_words_stay(value: object) -> None:
    assert csv_cell(value) is value


def test_a_table_keeps_its_numbers_to_the_digit() -> None:
    table = pd.DataFrame(
        {
            "class": ["=a", "b"],
            "+loss": np.array([-0.1, 0.7], np.float32),
            "support": [-1, 2],
        }
    )
    assert csv_cells(table).to_csv(index=False) == "class,'+loss,support\n'=a,-0.1,-1\nb,0.7,2\n"
    plain = table.rename(columns={"+loss": "loss"}).assign(**{"class": ["a", "b"]})
    assert csv_cells(plain).to_csv(index=False) == plain.to_csv(index=False)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_a_terminal_of_few_letters_gets_the_others_escaped(encoding: str) -> None:
    program = (
        "from imageclf.text import escape_what_the_terminal_lacks\n"
        "import sys\n"
        "escape_what_the_terminal_lacks()\n"
        "for stream in (sys.stdout, sys.stderr): print('猫 ü', file=stream)\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0
    assert done.stdout == done.stderr == "猫 ü\n".encode(encoding, "backslashreplace")
