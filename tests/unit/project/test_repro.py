from imageclf.project.repro import Bar, Line, Stage, events

WHOLE = (
    b"Stage 'fetch' didn't change, skipping\r\n"
    b"Stage 'weights' is cached - skipping run, checking out outputs\r\n"
    b"Running stage 'train':\r\n"
    b"> python stages/train.py\r\n"
    b"\x1b[1;31mwarning: \xc3\xa4rger\x1b[0m\r\n"
    b"\r\x1b[2K\xe2\xa0\x8b epoch 1/9\r\x1b[2K\xe2\xa0\x99 epoch 2/9\r\x1b[2Ka line\r\n"
    b"without an end"
)
SAID = [
    Stage("fetch", "unchanged"),
    Stage("weights", "cached"),
    Stage("train", "runs"),
    Line("> python stages/train.py"),
    Line("warning: \N{LATIN SMALL LETTER A WITH DIAERESIS}rger"),
    Line("a line"),
    Line("without an end"),
]


def test_stages_and_lines_are_told_however_the_output_is_cut() -> None:
    for size in (1, 2, 7, len(WHOLE)):
        chunks = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
        assert [event for event in events(chunks) if not isinstance(event, Bar)] == SAID


def test_a_bar_is_what_is_drawn_last() -> None:
    first, second = b"\r\x1b[2Kepoch 1/9\r\x1b[2Kepoch 2", b"/9\r\x1b[2K\x1b[36mepoch 3/9"
    assert [*events([first, second])] == [Bar("epoch 2"), Bar("epoch 3/9"), Line("epoch 3/9")]
