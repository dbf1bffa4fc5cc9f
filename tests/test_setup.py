"""`make setup` and `make lock`, with pip and uv as they are, of a project with few dependencies.

Its packages are packed again from those that are installed here, and its lock is made of them: no
package index is needed.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from helpers.params import ROOT

PACKAGES = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers", "uv")
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "imageclf"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = []

[project.optional-dependencies]
server = []

[dependency-groups]
dev = ["hatchling", "uv"]

[tool.hatch.build]
dev-mode-dirs = ["src"]

[tool.hatch.build.targets.wheel]
packages = ["src/imageclf"]
"""

pytestmark = pytest.mark.slow


def pack(name: str, folder: Path) -> None:
    """Write the wheel that an installed package came from, but for the programs that pip made."""
    package = distribution(name)
    title = f"{name.replace('-', '_')}-{package.version}"
    tags = re.findall(r"^Tag: (.*)$", package.read_text("WHEEL") or "", re.MULTILINE)
    sets = [
        ".".join(dict.fromkeys(parts))
        for parts in zip(*(tag.split("-") for tag in tags), strict=True)
    ]
    inside = {}
    for file in package.files or []:
        if file.parts[0] != "..":
            inside[str(file)] = file.locate()
        elif name == "uv" and file.name in ("uv", "uvx"):
            inside[f"{title}.data/scripts/{file.name}"] = file.locate()
    record = f"{title}.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"{title}-{'-'.join(sets)}.whl", "w") as wheel:
        for path, source in inside.items():
            if path != record:
                wheel.write(str(source), path)
        wheel.writestr(record, "".join(f"{path},,\n" for path in inside))


class Setting:
    """A project with the Makefile of this one, and an index that holds what it needs."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.lock = folder, folder / "requirements.lock"
        self.mark = folder / ".venv/installed"
        self.packages = folder / ".venv/lib" / f"python3.{sys.version_info.minor}/site-packages"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "UV_CACHE_DIR": str(folder / ".uv"),
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(wheels),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
        }
        (folder / "src/imageclf").mkdir(parents=True)
        (folder / "src/imageclf/__init__.py").touch()
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "mlflow.db").touch()
        shutil.copy(ROOT / "Makefile", folder)
        compile_lock = "compile --quiet --universal --generate-hashes --group dev pyproject.toml"
        uv = [sys.executable, "-m", "uv", "pip", *compile_lock.split(), "-o", str(self.lock)]
        subprocess.run(uv, cwd=folder, env=self.environment, check=True)

    def start(self, goal: str, **environment: str) -> subprocess.Popen[str]:
        """Start make in a process group of its own."""
        return subprocess.Popen(
            ["make", goal],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, goal: str = "setup", **environment: str) -> str:
        """What make says on standard output; it must succeed."""
        said, errors = self.start(goal, **environment).communicate()
        assert not errors
        return said

    def fail(self, **environment: str) -> str:
        """What `make setup` says on standard error; it must fail."""
        with self.start("setup", **environment) as process:
            _, errors = process.communicate()
        assert process.returncode == 2
        return errors

    def installed(self) -> set[str]:
        """The names of the packages that the environment holds, pip's own aside."""
        names = {path.name.split("-")[0] for path in self.packages.glob("*.dist-info")}
        return names - {"pip", "setuptools"}

    def age(self) -> None:
        """Let the lock be newer than the environment."""
        os.utime(self.mark, (0, 0))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in PACKAGES:
        pack(name, folder)
    return folder


@pytest.fixture
def setting(tmp_path: Path, wheels: Path) -> Iterator[Setting]:
    folder = tmp_path / "project"
    folder.mkdir()
    yield Setting(folder, wheels)
    shutil.rmtree(folder)  # uv is large


LOCKED = {name.replace("-", "_") for name in PACKAGES}


def test_environment_is_the_lock_and_the_project(setting: Setting, tmp_path: Path) -> None:
    assert setting.make() == "setting up .venv (about 6 GB, once)\n"
    assert setting.installed() == LOCKED | {"imageclf"}
    assert list(setting.packages.glob("pluggy/__pycache__/*.pyc"))
    assert setting.make() == ""
    say = [setting.folder / ".venv/bin/python", "-c", "print(__import__('imageclf').__file__)"]
    path = subprocess.check_output(say, cwd=tmp_path, env=setting.environment, text=True)
    assert path.strip() == str(setting.folder / "src/imageclf/__init__.py")

    surplus = setting.packages / "surplus-1.0.dist-info"
    surplus.mkdir()
    (surplus / "METADATA").write_text("Metadata-Version: 2.1\nName: surplus\nVersion: 1.0\n")
    (surplus / "RECORD").write_text(f"{surplus.name}/METADATA,,\n{surplus.name}/RECORD,,\n")
    setting.age()
    assert setting.make()
    assert setting.installed() == LOCKED | {"imageclf"}


def test_lock_is_renewed_when_pyproject_changes_only(setting: Setting, wheels: Path) -> None:
    setting.make()
    setting.make("lock")
    before = setting.lock.read_text()
    assert before.count("--hash=sha256:") == len(PACKAGES)
    assert str(wheels) not in before
    assert str(setting.folder) not in before
    setting.make("lock")
    assert setting.lock.read_text() == before

    fewer = PYPROJECT.replace('["hatchling", "uv"]', '["uv"]')
    (setting.folder / "pyproject.toml").write_text(fewer)
    setting.make("lock")
    assert re.findall(r"^([\w-]+)==", setting.lock.read_text(), re.MULTILINE) == ["uv"]


def test_two_at_once(setting: Setting) -> None:
    processes = [setting.start("setup") for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert [errors for _, errors in said] == ["", ""]
    assert sorted(out for out, _ in said) == ["", "setting up .venv (about 6 GB, once)\n"]
    assert setting.installed() == LOCKED | {"imageclf"}


@pytest.mark.parametrize("reached", ["pip", "uv", "pluggy"])
def test_killed(setting: Setting, reached: str) -> None:
    killed = setting.start("setup")
    while not (setting.packages / reached).exists():
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not setting.mark.exists()
    for half in setting.packages.glob("pluggy/_*.py"):
        half.unlink()
    setting.make()
    assert setting.installed() == LOCKED | {"imageclf"}
    use = [setting.folder / ".venv/bin/python", "-c", "import pluggy, hatchling, imageclf"]
    subprocess.run(use, env=setting.environment, check=True)


@pytest.mark.parametrize("name", ["uv", "pluggy"])
def test_hashes_are_checked(setting: Setting, name: str) -> None:
    wrong = f"({name}==.*\n.*sha256:)[0-9a-f]{{64}}"
    setting.lock.write_text(re.sub(wrong, rf"\g<1>{'0' * 64}", setting.lock.read_text()))
    errors = setting.fail()
    assert ("error: pip cannot install uv" if name == "uv" else "Hash mismatch") in errors
    assert name not in setting.installed()
    assert not setting.mark.exists()


def test_index_that_is_not_reached(setting: Setting, tmp_path: Path) -> None:
    nothing = {"PIP_FIND_LINKS": str(tmp_path), "UV_FIND_LINKS": str(tmp_path)}
    error, *_ = setting.fail(**nothing).splitlines()
    assert error == "error: pip cannot install uv, .venv/pip.log says why"
    assert "No matching distribution found for uv" in (setting.folder / ".venv/pip.log").read_text()

    setting.make()
    setting.age()
    shutil.rmtree(next(setting.packages.glob("pluggy-*.dist-info")))
    errors = setting.fail(**nothing, UV_CACHE_DIR=str(tmp_path / "empty"))
    assert "pluggy" in errors
    assert setting.mark.exists()
    assert setting.installed() == LOCKED - {"pluggy"} | {"imageclf"}


def test_a_folder_that_mlflow_cannot_use_is_told_first(tmp_path: Path) -> None:
    folder = tmp_path / "100% mine"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(
        ["make", "setup"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: MLflow makes no database if its path has a % in it: move")
    assert not (folder / ".venv").exists()


def test_user_and_home_are_those_that_the_system_knows() -> None:
    known = pwd.getpwuid(os.getuid())
    said = subprocess.check_output(
        ["make", "--eval", 'who:;@echo "$$USER $$HOME"', "who"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        text=True,
    )
    assert said.split() == [known.pw_name, known.pw_dir]
