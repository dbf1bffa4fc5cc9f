"""The files of a Debian package, downloaded and unpacked without root, but not installed."""

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from imageclf.sources.download import UnavailableError

COMMAND_TIMEOUT = 600  # seconds
ROOM = 100_000_000  # bytes: the lists of a distribution, a package and its files
NO_SPACE = ("No space left on device", "enough free space")
# apt writes only to private folders, so that root is not needed. The system's hooks are cleared:
# they maintain the system's lists, which do not change here.
APT_SETTINGS = """\
Dir::State "{folder}/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def unpack_package(name: str, target: Path) -> None:
    """Download a package from the system's package sources and unpack it.

    ``target`` is a new folder in an existing one; it appears only when it is whole.

    Raises:
        UnavailableError: apt is not installed, or cannot get the package.
        OSError: the disk has no space for it.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("apt-get is not installed here")
    # If the disk fills up, apt-get may wait forever.
    if shutil.disk_usage(target.parent).free < ROOM:
        raise _disk_is_full()
    with TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary).resolve()
        for private in ("state/lists/partial", "cache/archives/partial"):
            (folder / private).mkdir(parents=True)
        (folder / "apt.conf").write_text(APT_SETTINGS.format(folder=folder), "utf-8")
        # A list that is not available does not matter if another one has the package.
        update = _run(folder, "apt-get", "-c", "apt.conf", "update")
        download = _run(folder, "apt-get", "-c", "apt.conf", "download", name)
        if download.returncode:
            raise UnavailableError(_reason(update.stderr + download.stderr))
        package = next(folder.glob("*.deb")).name
        unpacked = _run(folder, "dpkg-deb", "--extract", package, "unpacked")
        if unpacked.returncode:
            raise UnavailableError(unpacked.stderr.strip())
        (folder / "unpacked").rename(target)


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    try:
        ended = subprocess.run(  # noqa: S603 - every word of it is the project's own
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},  # its messages are parsed
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} did not end in {COMMAND_TIMEOUT} s") from None
    if any(words in ended.stderr for words in NO_SPACE):
        raise _disk_is_full()
    return ended


def _disk_is_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(complaints: str) -> str:
    """The most useful line: what could not be reached, else the last error of apt-get."""
    lines: list[str] = re.findall(r"^[EW]: (.+)$", complaints, re.MULTILINE)
    unreachable = [line for line in lines if line.startswith("Failed to fetch")]
    return (unreachable or lines[-1:] or ["apt-get gave no reason"])[0]
