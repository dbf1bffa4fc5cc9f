"""Laptop and runners that share a remote: over a real sshd, through S3, and in trouble."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.loopback import Relay, running
from helpers.project import STAGES, Project, kill, working_on
from helpers.s3_server import running_s3
from helpers.ssh_server import SshServer, missing_programs, running_sshd
from helpers.team import Clone, Team, origin_of
from imageclf.files import read_yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())}"),
]
TRAINED = [*STAGES[3:]]  # all after transform
PREPARED = "data/prepared"
NAMESPACE = ("unshare", "--map-root-user", "--mount")
AS_OTHER_MACHINE = 'mount --bind "$1" /proc/cpuinfo && shift && exec "$@"'
OWN_DISK = 'mount -t tmpfs -o size=16m tmpfs "$1" && shift && exec "$@"'
LEASE = ("--lease", "50")


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data are prepared, and nothing trained yet."""
    project = Project(tmp_path_factory.mktemp("prepared"))
    project.set("train.epochs", "3")
    project.run("dvc", "repro", "transform")
    project.commit("prepared")
    return project


@pytest.fixture(scope="module")
def trained(prepared: Project, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same, and then trained undisturbed."""
    project = prepared.copy(tmp_path_factory.mktemp("trained") / "project")
    shutil.copy(migrated, project.folder)
    assert project.repro() == TRAINED
    project.commit("trained")
    return project


@pytest.fixture
def team(tmp_path: Path, ssh: SshServer, migrated: Path) -> Callable[..., Team]:
    """Makes a team around a copy of a project; its remote is the server's disk, over SFTP."""

    def make(project: Project, port: int | None = None) -> Team:
        url = f"ssh://{ssh.user}@127.0.0.1:{port or ssh.port}{tmp_path}/store"
        remote = {"url": url, "keyfile": str(ssh.key)}
        return Team(tmp_path, project, ssh, remote, migrated)

    return make


def run_elsewhere(runner: Clone) -> str:
    """Run the runner's part on what seems to be another machine."""
    cpuinfo = runner.folder.parent / "cpuinfo"
    cpuinfo.write_text("model name : a machine with a GPU\n")
    command = ("imageclf", "runner")
    return runner.run(*NAMESPACE, "sh", "-c", AS_OTHER_MACHINE, "sh", str(cpuinfo), *command)


def check_loop(team: Team, downloaded: Callable[[], int], trained: Project) -> Clone:
    """Laptop, runner, laptop; returns the runner."""
    laptop = team.laptop
    laptop.run("imageclf", "push")
    needed = needed_files(laptop)
    size, other = sum(needed.values()), size_of(laptop.folder / "data") - sum(needed.values())
    runner, before = team.clone("runner"), downloaded()
    said = run_elsewhere(runner)
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == TRAINED
    assert runner.md5s() == trained.md5s()
    there = {f"{PREPARED}/{path.name}" for path in (runner.folder / PREPARED).iterdir()}
    assert there == {name for name in needed if name.startswith(PREPARED)}
    assert not (runner.folder / "data/raw").exists()
    assert size < downloaded() - before < size + other / 2  # the protocols have their say, too
    assert team.refs("leases") == []

    again, before = run_elsewhere(runner), downloaded()
    assert "Running stage" not in again
    assert "0 new journals" in again

    laptop.run("git", "pull", "--quiet", "--ff-only")
    assert laptop.md5s() == trained.md5s()
    assert "1 brought up to date" in laptop.run("imageclf", "pull")
    assert laptop.repro() == []
    (run,) = laptop.runs()
    assert run.data.tags["hardware"] == "a machine with a GPU" == origin_of(runner)["hardware"]
    assert len(laptop.client().get_metric_history(run.info.run_id, "time/seconds")) == 3
    assert "Cache and remote 'store' are in sync" in laptop.run("dvc", "status", "--cloud")
    return runner


def check_other_data(laptop: Project, runner: Clone) -> None:
    """A runner that has the files of an earlier commit trains on those of the next one."""
    laptop.set("transform.val_fraction", "0.2")
    laptop.run("dvc", "repro", "transform")
    laptop.commit("other data")
    laptop.run("git", "push", "--quiet")
    laptop.run("imageclf", "push")
    assert "Running stage 'train'" in run_elsewhere(runner)
    assert "train" in laptop.repro()
    assert runner.md5s() == laptop.md5s()


def needed_files(project: Project) -> dict[str, int]:
    """Which files the stages after transform read of those that it and fetch wrote, in bytes."""
    stages = read_yaml(project.folder / "dvc.yaml")["stages"]
    deps = {dep for name in TRAINED for dep in stages[name]["deps"]}
    written = [dep for dep in deps if dep.startswith((PREPARED, "reports/data"))]
    sizes = {dep: project.folder / dep for dep in written if (project.folder / dep).exists()}
    return {dep: path.stat().st_size for dep, path in sizes.items()}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))


def test_laptop_runner_laptop_over_ssh(
    prepared: Project, trained: Project, team: Callable[..., Team], ssh: SshServer
) -> None:
    with running(Relay(ssh.port)) as relay:
        made = team(prepared, relay.port)
        check_other_data(made.laptop, check_loop(made, lambda: relay.received, trained))


def test_laptop_runner_laptop_through_s3(
    prepared: Project, trained: Project, tmp_path: Path, ssh: SshServer, migrated: Path
) -> None:
    with running_s3(tmp_path) as port, running(Relay(port)) as relay:
        remote = {"url": "s3://bucket/store", "endpointurl": f"http://127.0.0.1:{relay.port}"}
        made = Team(tmp_path, prepared, ssh, remote, migrated)
        made.server |= {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
        check_loop(made, lambda: relay.received, trained)


def pull_whole(team: Team, trained: Project) -> None:
    """Someone else gets all that the laptop pushed, and the bytes are right."""
    other = team.clone("other")
    other.run("dvc", "pull")
    assert torn(team) == []
    assert "Data and pipelines are up to date" in other.run("dvc", "status")
    assert other.md5s() == trained.md5s()
    for path in ("models/exported/model.onnx", "data/prepared/train.images.npy"):
        assert (other.folder / path).read_bytes() == (trained.folder / path).read_bytes()
    assert other.repro() == []


def torn(team: Team) -> list[Path]:
    """Files of the remote whose content is not what their name says."""
    found = (team.folder / "store/files/md5").glob("*/[!.]*")
    return [path for path in found if md5_of(path) != f"{path.parent.name}{path.name[:30]}"]


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_a_push_that_was_killed(
    trained: Project, team: Callable[..., Team], ssh: SshServer
) -> None:
    made = team(trained)
    with running(Relay(ssh.port)) as relay:
        direct = made.remote["url"]
        made.configure(made.laptop, url=direct.replace(f":{ssh.port}/", f":{relay.port}/"))
        relay.most = 350_000
        process = made.laptop.start("dvc", "push", "--jobs", "1")
        assert relay.holding.wait(60)
        kill(process)
    pushed = list((made.folder / "store/files").rglob("[!.]*"))
    assert torn(made) == []
    made.configure(made.laptop)
    made.laptop.run("git", "push", "--quiet")
    made.laptop.run("imageclf", "push")
    assert len(list((made.folder / "store/files").rglob("[!.]*"))) > len(pushed)
    pull_whole(made, trained)


def refusal(project: Project) -> str:
    """The last line of a push that fails."""
    said = project.run("imageclf", "push", check=False).splitlines()
    assert not any("Traceback" in line for line in said)
    return said[-1]


REFUSED = "error: store did not take every file: push again"


def test_a_remote_that_takes_nothing(
    trained: Project, team: Callable[..., Team], tmp_path: Path
) -> None:
    made = team(trained)
    with running_sshd(tmp_path / "sshd", read_only=True) as closed:
        url = f"ssh://{closed.user}@127.0.0.1:{closed.port}{tmp_path}/store"
        made.configure(made.laptop, url=url, keyfile=str(closed.key))
        assert refusal(made.laptop) == REFUSED
    made.configure(made.laptop)
    made.laptop.run("git", "push", "--quiet")
    made.laptop.run("imageclf", "push")
    pull_whole(made, trained)


def test_a_remote_whose_disk_is_full(
    trained: Project, team: Callable[..., Team], tmp_path: Path
) -> None:
    namespace, disk = ("unshare", "--mount"), tmp_path / "store"
    if os.getuid() or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("needs to mount a small disk (unshare --mount)")
    disk.mkdir()
    with running_sshd(
        tmp_path / "sshd", prefix=(*namespace, "sh", "-c", OWN_DISK, "sh", str(disk))
    ) as small:
        seen = Path(f"/proc/{small.process.pid}/root", disk.relative_to("/"))
        fill(seen / "filler", free=400_000)
        made = team(trained)
        url = f"ssh://{small.user}@127.0.0.1:{small.port}{disk}"
        made.remote |= {"url": url, "keyfile": str(small.key)}
        made.configure(made.laptop)
        made.laptop.run("git", "push", "--quiet")
        assert refusal(made.laptop) == REFUSED
        (seen / "filler").unlink()
        made.laptop.run("imageclf", "push")
        pull_whole(made, trained)


def fill(path: Path, free: int) -> None:
    """Leave only so many bytes free on a disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(file.tell() - free)


def start_runner(runner: Clone, *options: str) -> "subprocess.Popen[bytes]":
    """Start the runner's part; what it says goes to a file beside it."""
    with (runner.folder.parent / f"{runner.folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            ["imageclf", "runner", *options],
            executable=shutil.which("imageclf", path=runner.environment["PATH"]),
            cwd=runner.folder,
            env=runner.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def await_words(runner: Clone, words: str, seconds: float = 120) -> None:
    log, deadline = runner.folder.parent / f"{runner.folder.name}.log", time.monotonic() + seconds
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def said(runner: Clone) -> str:
    return (runner.folder.parent / f"{runner.folder.name}.log").read_text()


def test_two_runners_of_which_one_dies(
    prepared: Project, trained: Project, team: Callable[..., Team]
) -> None:
    made = team(prepared)
    made.laptop.run("imageclf", "push")
    first, second = made.clone("first"), made.clone("second")
    dying = start_runner(first, *LEASE)
    await_words(first, "    1/3")
    waiting = start_runner(second, *LEASE)
    await_words(second, "trains this model: waiting")
    os.kill(dying.pid, signal.SIGKILL)  # and nothing else: what it started has to end by itself
    dying.wait()
    await_end_of_training(first)
    assert waiting.wait(300) == 0
    assert "Running stage 'train'" in said(second)
    assert second.md5s() == trained.md5s()
    assert made.refs("leases") == []
    assert start_runner(first).wait(120) == 0
    assert said(first).count("Running stage 'train'") == 1
    assert first.md5s() == trained.md5s()
    assert made.refs("leases") == []
    assert len(made.refs("journals")) == 1


def await_end_of_training(runner: Clone) -> None:
    """Until no process trains in a folder."""
    deadline = time.monotonic() + 5
    while working_on(runner, "train"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_runners_at_the_same_time(
    prepared: Project, trained: Project, team: Callable[..., Team]
) -> None:
    made = team(prepared)
    made.laptop.run("imageclf", "push")
    runners = [made.clone("first"), made.clone("second")]
    ends = [process.wait(400) for process in [start_runner(each) for each in runners]]
    assert ends == [0, 0]
    assert sorted(said(each).count("Running stage 'train'") for each in runners) == [0, 1]
    assert [runner.md5s() for runner in runners] == [trained.md5s()] * 2
    assert made.refs("leases") == []
