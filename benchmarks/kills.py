"""Kill whatever runs at random moments, and see whether `make run` always ends in the same bytes.

    python benchmarks/kills.py --kills 100

A copy of the project has run the whole pipeline on the built-in digits, undisturbed. Then, again
and again, one stage is forgotten, `dvc repro` is started to run it, and at a random moment a kill
-9 hits `dvc` alone, the stage alone, the process that reports to MLflow, the tracking server, or
the whole process group. At once follow the commands of `make run`, `imageclf mend` and `dvc
repro`. The md5s in dvc.lock have to be those of the undisturbed run, and no process may be left.

A process may have ended before its moment comes. That is no kill: it is counted as missed, and
another moment is drawn. What follows a kill is never tried twice.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.mlflow_server import start_mlflow, stop
from helpers.ports import unused_port
from helpers.project import STAGES, Project, kill

SETTINGS = {
    "transform.image_size": "8",
    "model.hidden": "[16]",
    "train.epochs": "4",
    "runtime.threads": "1",
    "runtime.checkpoint_minutes": "0.0001",
}
EVERYTHING, DVC, STAGE, REPORTER, SERVER = "all", "dvc", "stage", "reporter", "server"
# What is killed, and how often in 20 kills.
VICTIMS = {EVERYTHING: 6, DVC: 6, STAGE: 4, REPORTER: 2, SERVER: 2}
# The stages during which it runs, where that is not all of them.
DURING = {REPORTER: ("train",), SERVER: ("train", "register")}
# How often a stage is chosen: those more often that are short, and the training.
CHOSEN = (*STAGES, "fetch", "transform", "weights", "embed", "train", "train", "train")
POLL_S = 0.005
LONGEST_S = 300.0


class Kills:
    """A project that has run undisturbed and is killed since.

    Attributes:
        md5s: of the outs of the undisturbed run.
        seconds: that `dvc repro` took for each stage the last time.
    """

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.project, self.draw = Project(folder / "project"), draw
        self.server = TrackingServer(folder)
        for path, value in SETTINGS.items():
            self.project.set(path, value)
        started = time.monotonic()
        self.project.run("dvc", "repro")
        self.md5s = self.project.md5s()
        self.seconds = dict.fromkeys(STAGES, (time.monotonic() - started) / len(STAGES))

    def strike(self, victim: str, stage: str) -> bool:
        """Start `dvc repro`, which runs the stage, and kill at a random moment.

        Returns:
            False if the victim had ended by then.
        """
        self.project.forget(stage)
        self.project.server = self.server.variables() if victim == SERVER else {}
        process = self.project.start("dvc", "repro")
        time.sleep(self.draw.uniform(0, self.seconds[stage]))
        done = process.poll() is None and self._kill(victim, process)
        if victim in (EVERYTHING, DVC) and done:
            process.wait()
        else:  # dvc says that its stage has failed, or goes on
            process.wait(LONGEST_S)
        return done

    def _kill(self, victim: str, process: "subprocess.Popen[bytes]") -> bool:
        if victim == EVERYTHING:
            kill(process)
        elif victim == DVC:
            process.kill()
        elif victim == SERVER:
            self.server.kill()
        else:
            name = b"imageclf.tracking.reporter" if victim == REPORTER else b"stages/"
            found = [pid for pid, command in self._running() if name in command]
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            return bool(found)
        return True

    def repair(self, stage: str) -> tuple[list[str], list[str]]:
        """Type what `make run` types; what was mended, and what is wrong afterwards."""
        self.project.server = self.server.variables() if self.project.server else {}
        said = self.project.run("imageclf", "mend", check=False).splitlines()
        started = time.monotonic()
        output = self.project.run("dvc", "repro", check=False)
        self.seconds[stage] = time.monotonic() - started
        wrong = []
        if "Use `dvc push`" not in output and "up to date" not in output:
            wrong.append(f"dvc repro failed:\n{output}")
        elif self.project.md5s() != self.md5s:
            wrong.append("other md5s")
        deadline = time.monotonic() + LONGEST_S
        while (left := self._running()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        wrong += [f"still runs: {command!r}" for _, command in left]
        return [line for line in said if "nothing to mend" not in line], wrong

    def _running(self) -> list[tuple[int, bytes]]:
        """The processes in the project's folder, with their command lines."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "cwd").resolve() == self.project.folder.resolve():
                    found.append((int(entry.name), (entry / "cmdline").read_bytes()))
            except OSError:  # it ended meanwhile
                continue
        return found


class TrackingServer:
    """A tracking server of MLflow's, which is started where it does not run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, unused_port()
        self._process: subprocess.Popen[bytes] | None = None

    def variables(self) -> dict[str, str]:
        """What leads a stage to the server, which runs then."""
        if self._process is None:
            self._process = start_mlflow(
                self._folder / "server.log",
                self._port,
                *("server", "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self._folder}/server.db"),
                *("--artifacts-destination", str(self._folder / "artifacts")),
            )
        return {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self._port}"}

    def kill(self) -> None:
        if self._process is not None:
            stop(self._process)
        self._process = None


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--kills", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Draws the moments.")
def main(kills: int, seed: int) -> None:
    draw = random.Random(seed)
    drawn = [victim for victim, times in VICTIMS.items() for _ in range(times)]
    victims = (drawn * (kills // len(drawn) + 1))[:kills]
    draw.shuffle(victims)
    told, missed, failed = Counter[str](), 0, 0
    # MLflow's process outlives the training that it reports, and may still write a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = Kills(Path(folder), draw)
        click.echo(f"undisturbed: {len(project.md5s)} outs in dvc.lock")
        for number, victim in enumerate(victims, start=1):
            while not project.strike(victim, stage := draw.choice(DURING.get(victim, CHOSEN))):
                missed += 1
            mended, wrong = project.repair(stage)
            told.update([f"killed {victim}", *mended])
            failed += bool(wrong)
            click.echo(f"{number}: {victim} during {stage}: {'; '.join([*mended, *wrong]) or 'ok'}")
        project.server.kill()
    for line, times in told.most_common():
        click.echo(f"{times:>4} x {line}")
    click.echo(f"{kills - failed} of {kills} ended in the same md5s ({missed} moments missed)")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
