import json
from pathlib import Path

import pytest

from imageclf.commands.run import LOG, Face, duration
from imageclf.project.repro import Bar, End, Event, Line, Stage

RAW = {"title": "Clothes", "files": {"a": {"bytes": 2_000_000}, "b": {"bytes": 500_000}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what fetch and weights wrote."""
    monkeypatch.chdir(tmp_path)
    for path, value in {
        "data/raw/source.json": RAW,
        "models/pretrained/weights.json": None,
        "reports/metrics.json": {"accuracy": 0.8714},
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(value))
    return tmp_path


def show(*found: Event) -> int:
    face = Face(verbose=False)
    code = face.show(found)
    face.write_log()
    return code


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageclf.commands.run.time.monotonic", lambda: 0.0)


def test_a_line_for_each_stage_that_had_something_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [Line("> python stages/fetch.py"), Line("Updating lock file 'dvc.lock'")]
    code = show(
        *[Stage("fetch", "runs"), *own, Line("trying a mirror"), Bar("12 kB")],
        *[Line("warning: the mirror is a word " + "slower " * 9), Stage("weights", "runs")],
        *[Stage("evaluate", "cached"), Line("To track the changes with git, run:"), End(0)],
    )
    assert code == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "fetch         warning  the mirror is a word slower slower slower slower slower",
        "                       slower slower slower slower",
        "fetch           0.0 s  Clothes, 2.5 MB",
        "evaluate   from cache  test accuracy 87.1 %",
    ]
    assert told.err == ""
    assert LOG.read_text().splitlines()[2:3] == ["trying a mirror"]


def test_nothing_new_is_said_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Stage("fetch", "unchanged"), Stage("evaluate", "unchanged"), End(0)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fetch      up to date  Clothes, 2.5 MB",
        "evaluate   up to date  test accuracy 87.1 %",
        "everything is up to date",
    ]


def test_the_error_of_a_stage_is_told_once_with_its_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = show(
        *[Stage("fetch", "runs"), Stage("train", "runs"), Line("error: no such file")],
        *[Line("ERROR: failed to reproduce 'train': failed to run: x, exited with 2"), End(2)],
    )
    assert code == 2
    told = capsys.readouterr()
    assert told.err == "error: no such file\n"
    assert [line.split()[0] for line in told.out.splitlines()] == ["fetch", "train", "all"]
    assert told.out.splitlines()[1] == "train           0.0 s  failed"
    assert str(LOG) in told.out


def test_a_stage_that_breaks_shows_what_it_said_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traceback = [Line(f"line {number}") for number in range(20)]
    end = Line("ERROR: failed to reproduce 'train': failed to run: x, exited with -9")
    assert show(Stage("train", "runs"), *traceback, end, End(137)) == 137
    told = capsys.readouterr()
    assert "line 19\n" in told.out
    assert "line 2\n" not in told.out
    assert told.err == "error: the stage train ended with code 137\n"


def test_what_dvc_itself_cannot_do_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(Line("ERROR: Unable to acquire lock."), End(1)) == 1
    assert capsys.readouterr().err == "error: Unable to acquire lock.\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (4830, "1 h 20 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
