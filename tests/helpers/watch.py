"""What a reader of a file from elsewhere may not do: start a program, write, take much memory."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod"}
MEMORY = 1 << 29  # bytes on top of what the process has

# What a reader of YAML may stumble over.
YAML_WORDS = [
    b"null",
    b"~",
    b"[]",
    b"{}",
    b"!!python/object/apply:os.system [id]",
    b"&a ",
    b"*a",
    b"? ",
    b"2001-99-99",
    b"0o9",
    b"1e999",
    b"\t",
    b"- ",
    b": ",
    b"[" * 2000,
    b"%YAML 9.9\n---\n",
    b"---\n",
    b"...\n",
    b"|\n",
    b"\xff\xfe",
    b"\x00",
    b"\xc2\x85",
    b"!!binary x",
    b"!!set {a}",
    b"!!int x",
    b"!!float x",
    b"!!omap x",
    b"=",
    b"9" * 5000,
]


class Watch:
    """Notes what starts a program, or changes a file outside of a folder.

    The hook notes while it is on; it cannot be removed.
    """

    def __init__(self) -> None:
        self.on = False
        self.folder = "/nowhere/"
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (
            event in STARTS or (_changes(event, arguments) and self._outside(arguments))
        ):
            self.seen.append(f"{event} {arguments}")

    def _outside(self, arguments: tuple[Any, ...]) -> bool:
        place = arguments[0]
        if isinstance(place, int):  # a file that is open already
            return False
        return not f"{os.path.realpath(os.fsdecode(place))}/".startswith(self.folder)

    @contextmanager
    def nothing_starts(self, folder: Path = Path("/nowhere")) -> Iterator[None]:
        """Fail if the block starts a program, or changes a file outside of the folder."""
        sys.dont_write_bytecode = True  # of modules that are imported in the block
        self.folder, self.on = f"{folder.resolve()}/", True
        try:
            yield
        finally:
            self.on = False
        seen, self.seen = self.seen, []
        assert not seen, seen


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(arguments[2] & 0b11)  # O_WRONLY or O_RDWR
    return event in CHANGES


@contextmanager
def little_memory(more: int = MEMORY) -> Iterator[None]:
    """Let an allocation of ``more`` bytes beyond the address space that is used now fail."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@st.composite
def mutated(draw: st.DrawFn, whole: list[bytes], words: list[bytes] = ()) -> bytes:
    """One of these files with bytes overwritten, put in, taken out, doubled or cut off.

    ``words`` are put in beside random bytes.
    """
    content = bytearray(draw(st.sampled_from(whole)))
    data = st.binary(min_size=1, max_size=8)
    if words:
        data |= st.sampled_from(words)
    for _ in range(draw(st.integers(1, 3))):
        place, other = (draw(st.integers(0, len(content))) for _ in range(2))
        length = draw(st.integers(0, 60))
        match draw(st.sampled_from(["set", "set", "put", "put", "take", "copy", "cut"])):
            case "set":
                put = draw(data)
                content[place : place + len(put)] = put
            case "put":
                content[place:place] = draw(data)
            case "take":
                del content[place : place + length]
            case "copy":
                content[place:place] = content[other : other + length]
            case "cut":
                del content[place:]
    return bytes(content)


def examples(count: int) -> settings:
    """The settings of a property test: so many examples, others at each run."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
