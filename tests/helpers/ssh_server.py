"""A real sshd on loopback, with keys of its own; the accounts are those of this machine."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.ports import answers, unused_port

PROGRAMS = ("sshd", "ssh", "ssh-keygen")
# Where sshd and its kin are on most systems, though not on everyone's path.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp {sftp}
"""


@dataclass(frozen=True)
class SshServer:
    """A server, and the private key that it lets in as any user of the machine."""

    port: int
    key: Path
    process: "subprocess.Popen[bytes]"

    @property
    def user(self) -> str:
        """Who runs the tests: the one account that a server without root's rights serves."""
        return getpass.getuser()

    def options(self, port: int | None = None) -> tuple[str, ...]:
        """Words for `ssh` that lead here and ask nothing."""
        return (
            *("-p", str(port or self.port), "-i", str(self.key)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"),
        )


def missing_programs() -> list[str]:
    """Those of OpenSSH's programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


@contextmanager
def running_sshd(
    folder: Path, *, read_only: bool = False, prefix: Sequence[str] = (), setting: str = ""
) -> Iterator[SshServer]:
    """Start a server whose keys lie in ``folder``, by way of other programs if need be.

    ``setting`` is a variable of its sessions, as NAME=VALUE.
    """
    folder.mkdir(exist_ok=True)
    for name in ("host_key", "key"):
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        subprocess.run(command, check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o644)
    port = unused_port()
    sftp = "internal-sftp -R" if read_only else "internal-sftp"
    config = CONFIG.format(port=port, folder=folder, sftp=sftp)
    config += f"SetEnv {setting}\n" if setting else ""
    (folder / "sshd_config").write_text(config)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a login
    sshd = shutil.which("sshd", path=PATH)
    with (folder / "sshd.log").open("wb") as log:
        command = (*prefix, str(sshd), "-D", "-e", "-f", str(folder / "sshd_config"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await(port, process, folder / "sshd.log")
        yield SshServer(port, folder / "key", process)
    finally:
        process.terminate()
        process.wait()


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if answers(port):
            return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not answer:\n{log.read_text()}")
