import re

import numpy as np

from imageclf.drawing.charts import HEIGHT, WIDTH, Axis, Series, chart

PERCENT = Axis(percent=True)


def path(page: str, form: str) -> str:
    (found,) = re.findall(rf'<path class="{form}"[^>]* d="([^"]*)"', page)
    return str(found)


def test_a_line_goes_from_corner_to_corner() -> None:
    page = chart("Up", [Series("it", [0, 1], [0, 1])], PERCENT, PERCENT)
    assert path(page, "line") == f"M0 {HEIGHT}L{WIDTH} 0"


def test_texts_are_escaped() -> None:
    page = chart("<t>", [Series("<s>", [0], [0])], Axis(label="<x>"), PERCENT)
    assert "<t>" not in page
    assert all(f"&lt;{text}&gt;" in page for text in "tsx")


def test_ticks_are_round_numbers_within_the_range() -> None:
    assert [text for _, text in PERCENT.ticks()] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert [text for _, text in Axis(0.985, 1, percent=True).ticks()] == [
        "98.5%",
        "99%",
        "99.5%",
        "100%",
    ]
    assert [text for _, text in Axis(1, 3, whole=True).ticks()] == ["1", "2", "3"]


def test_a_curve_of_a_million_points_takes_no_more_room_than_it_shows() -> None:
    x = np.linspace(0, 1, 1_000_000)
    page = chart("Long", [Series("it", x, x**2)], PERCENT, PERCENT)
    assert len(page) < 20_000
    assert path(page, "line").endswith(f"{WIDTH} 0")


def test_an_area_is_closed_and_dots_have_their_radius() -> None:
    page = chart("Both", [Series("", [0, 1], [1, 1], form="area")], PERCENT, PERCENT)
    assert path(page, "area") == f"M0 0L{WIDTH} 0V{HEIGHT}H0z"
    page = chart("Dots", [Series("", [0, 1], [0, 1], "red", "dots", [2, 9])], PERCENT, PERCENT)
    assert re.findall(r' r="([^"]*)"', page) == ["2.0", "9.0"]
    assert "color: var(--red)" in page
