"""docs/runners.md, word for word: three accounts that nobody has used, as if on three machines.

All are on loopback, in a mount namespace with a /home, an /etc/passwd and a /var/tmp (where DVC
keeps what it knows of a folder, by its path) of its own, so that this machine gets no new users.
What the page does and the test does not is install the environment; and the tracking server's port
and its other end are free ones, as three machines are one here.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.params import ROOT
from helpers.ports import answers, unused_port
from helpers.project import STAGES, Project
from helpers.ssh_server import SshServer, missing_programs, running_sshd

PAGE = (ROOT / "docs/runners.md").read_text()
NAMESPACE = ("unshare", "--mount")
USERS = {"laptop": 60001, "runner": 60002, "imageclf": 60003}
SETUP = """
set -e
folder=$1 python=$2 packages=$3; shift 3
for name in passwd shadow group; do
    cp "/etc/$name" "$folder/$name"
done
for user in {users}; do
    name=${{user%:*}} id=${{user#*:}}
    echo "$name:x:$id:$id::/home/$name:/bin/bash" >> "$folder/passwd"
    echo "$name:*:19000:0:99999:7:::" >> "$folder/shadow"
    echo "$name:x:$id:" >> "$folder/group"
done
for name in passwd shadow group; do
    mount --bind "$folder/$name" "/etc/$name"
done
mount -t tmpfs -o mode=755,size=2g tmpfs /home
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mkdir /home/.python /home/.packages
mount --bind "$python" /home/.python
mount --bind "$packages" /home/.packages
for user in {users}; do
    name=${{user%:*}} id=${{user#*:}}
    mkdir -m 700 "/home/$name"
    chown "$id:$id" "/home/$name"
done
exec "$@"
"""


def can_make_accounts() -> bool:
    return (
        os.getuid() == 0
        and not missing_programs()
        and subprocess.run([*NAMESPACE, "true"], check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_make_accounts(), reason="needs root, unshare --mount and sshd"),
]


class Accounts:
    """The accounts, and a shell in each."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._homes = Path(f"/proc/{server.process.pid}/root/home")
        self._before: dict[str, list[str]] = {name: [] for name in USERS}
        # What the page says, but for the address, which has to be this machine's.
        (config,) = re.findall(r"^```\n(Host .*?)```", PAGE, re.MULTILINE | re.DOTALL)
        here = f"    Port {server.port}\n    StrictHostKeyChecking accept-new\n"
        storage = config.replace("storage.example.org", "127.0.0.1") + here
        runner = storage.replace("Host storage", "Host runner").replace("imageclf", "runner")
        self._config = storage + runner
        for name in ("laptop", "runner"):
            self._equip(name)

    def _equip(self, name: str) -> None:
        home = self._homes / name
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh/config").write_text(self._config)
        shutil.copy(self._server.key, home / ".ssh/id_ed25519")
        (home / ".gitconfig").write_text(f"[user]\nname = {name}\nemail = {name}@example.org\n")
        self._own(name)

    def _own(self, name: str) -> None:
        owner = f"{USERS[name]}:{USERS[name]}"
        subprocess.run(["chown", "--recursive", owner, str(self._homes / name)], check=True)

    def install(self, name: str, store: Path) -> None:
        """What `make setup` would do, with the packages that are installed here already."""
        project, inside = self._homes / name / "imageclf", f"/home/{name}/imageclf"
        programs = project / ".venv/bin"
        library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        packages = project / ".venv" / library
        programs.mkdir(parents=True)
        packages.mkdir(parents=True)
        (project / ".venv/pyvenv.cfg").write_text("home = /home/.python/bin\n")
        (packages / "installed.pth").write_text(f"{inside}/src\n/home/.packages\n")
        interpreter = Path(os.path.realpath(sys.executable)).name
        (programs / "python").symlink_to(f"/home/.python/bin/{interpreter}")
        for program in ("dvc", "imageclf"):
            script = (Path(sys.executable).parent / program).read_text().split("\n", 1)[1]
            (programs / program).write_text(f"#!{inside}/.venv/bin/python\n{script}")
            (programs / program).chmod(0o755)
        (programs / "activate").write_text(f'PATH="{inside}/.venv/bin:$PATH"\n')
        shutil.copy(store, project)
        (project / ".venv/installed").touch()
        self._own(name)

    def run(self, name: str, line: str) -> str:
        """What a line says that is typed in the account's shell, after those before it."""
        done = subprocess.run(
            self._command(name, line),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}$ {line}\n{done.stdout}\n{done.stderr}"
        if line.startswith(("cd ", "source ", "export ")):
            self._before[name].append(line)
        return done.stdout + done.stderr

    @contextmanager
    def running(self, name: str, line: str) -> Iterator[None]:
        """A line that goes on until Ctrl-C, in a terminal of its own."""
        command = self._command(name, line)
        with subprocess.Popen([command[0], "-tt", *command[1:]], stdin=subprocess.PIPE) as process:
            yield
            process.communicate(b"\x03")

    def _command(self, name: str, line: str) -> list[str]:
        words = " && ".join((*self._before[name], line))
        return ["ssh", *self._server.options(), f"{name}@127.0.0.1", words]

    def give(self, name: str, project: Project) -> None:
        """A project in the account's home, and its shell in it."""
        shutil.copytree(project.folder, self._homes / name / "imageclf")
        self._before[name].append("cd imageclf")


@pytest.fixture
def accounts(migrated: Path) -> Iterator[Accounts]:
    users = " ".join(f"{name}:{number}" for name, number in USERS.items())
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # sshd reads the keys as the user
        script = ("sh", "-c", SETUP.format(users=users), "sh", name, sys.base_prefix, packages)
        library = "LD_LIBRARY_PATH=/home/.python/lib"  # where Python may have its own
        prefix = (*NAMESPACE, *script)
        with running_sshd(Path(name) / "sshd", prefix=prefix, setting=library) as server:
            yield Accounts(server)


def test_the_page_word_for_word(accounts: Accounts, migrated: Path, tmp_path: Path) -> None:
    accounts.give("laptop", Project(tmp_path))
    accounts.install("laptop", migrated)
    said = {}
    for block in re.findall(r"^```console\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            name, words = line.split("$ ", 1)
            said[line] = accounts.run(name, words)
            if words.startswith("git clone"):
                accounts.install(name, migrated)
    ran = [stage for stage in STAGES if f"Running stage '{stage}'" in said["runner$ make runner"]]
    assert ran == [*STAGES[3:]]
    assert "Data and pipelines are up to date." in said["laptop$ dvc repro"]
    assert "Running stage" not in said["laptop$ dvc repro"]
    assert "%" in said["laptop$ imageclf runs"]
    assert "Running stage" not in accounts.run("runner", "make runner")
    follow_server(accounts)


def follow_server(accounts: Accounts) -> None:
    """The section on one tracking server, with ports that are free on this one machine."""
    ports = [unused_port(), unused_port()]
    (block,) = re.findall(r"^```\n(laptop\$ make server.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    block = block.replace("make server", f"make server PORT={ports[0]}")
    block = block.replace("5000:127.0.0.1:5000", f"{ports[1]}:127.0.0.1:{ports[0]}")
    block = block.replace("http://127.0.0.1:5000", f"http://127.0.0.1:{ports[1]}")
    server, tunnel, *others = (line.split("$ ", 1) for line in block.splitlines())
    change = "sed -i 's/^seed: 1 /seed: 2 /' params.yaml && git commit --quiet --all --message Seed"
    accounts.run("laptop", f"{change} && git push --quiet")
    with accounts.running(*server):
        wait_for_port(ports[0])
        with accounts.running(*tunnel):
            wait_for_port(ports[1])
            for name, words in others:
                accounts.run(name, words)
            assert "Running stage 'train'" in accounts.run("runner", "make runner")
        accounts.run("laptop", "install -D -m 600 .server/credentials ~/.mlflow/credentials")
        there = f"MLFLOW_TRACKING_URI=http://127.0.0.1:{ports[0]}"
        assert "%" in accounts.run("laptop", f"{there} imageclf runs")
        assert "champion" in accounts.run("laptop", f"{there} imageclf trace models:/digits/1")


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while not answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)
