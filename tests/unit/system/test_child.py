import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageclf.system.child import guarded

# A program with a child, that says the number of both.
WITH_CHILD = "sleep 100 & echo $$ $!; wait"
STUBBORN = "trap '' INT; echo $$; while :; do sleep 1; done"
GUARDED = """
import subprocess
import sys
from imageclf.system.child import guarded

with guarded(["sh", "-c", sys.argv[1]], stdout=subprocess.PIPE) as process:
    print(process.stdout.readline().decode(), flush=True)
    sys.exit(process.wait())
"""


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A shell's job in the background ignores SIGINT, and what it starts would, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def is_gone(number: int) -> bool:
    """Within a second."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_block_ends_it_and_its_children() -> None:
    with guarded(["sh", "-c", WITH_CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout
        numbers = [int(number) for number in process.stdout.readline().split()]
    process.stdout.close()
    assert process.returncode == -signal.SIGINT
    assert all(map(is_gone, numbers))


def test_one_that_ends_by_itself_keeps_its_code() -> None:
    with guarded(["sh", "-c", "exit 3"]) as process:
        assert process.wait() == 3


def test_a_stubborn_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageclf.system.child.STOP_S", 0.2)
    with guarded(["sh", "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_the_death_of_this_process_ends_it_too() -> None:
    command = [sys.executable, "-c", GUARDED, WITH_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        numbers = [int(number) for number in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert all(map(is_gone, numbers))


def test_a_question_can_be_answered_in_the_terminal() -> None:
    terminal, inside = os.openpty()
    asking = "exec python -c 'import getpass; exit(getpass.getpass() != \"secret\")'"
    command = ["setsid", "--ctty", sys.executable, "-c", GUARDED, asking]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside) as process:
        os.close(inside)
        assert b"Password:" in os.read(terminal, 100)
        os.write(terminal, b"secret\n")
        assert process.wait(10) == 0
    os.close(terminal)
