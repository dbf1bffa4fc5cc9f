import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from helpers.files import flip
from imageclf.commands.rebuild import ask_whether, finding, verdict
from imageclf.files import UserError
from imageclf.lineage.find import Lineage
from imageclf.lineage.rebuild import Again, Rebuilt, Result, other_sources, prepare, rebuild
from imageclf.lineage.source import Source, source_of
from imageclf.project import dvc as dvc_module
from imageclf.project.dvc import dvc
from imageclf.project.git import Commit
from imageclf.project.integrity import copies_of
from imageclf.project.lock import Out
from imageclf.team.sharing import JOURNALS
from imageclf.tracking.journal import Journal, Record
from imageclf.tracking.messages import RunDescription
from imageclf.tracking.patch import record_source
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.queries import TrackedRun

FINGERPRINT = "f" * 64


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def lineage(project: Path) -> Lineage:
    """A training from a project that is a part of its repository, and changed since the commit."""
    git("init", "--quiet")
    Path("part").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("part")
        assert dvc("init", "--subdir", "--quiet").returncode == 0
        Path("source.py").write_text("1\n")
        Path(".gitignore").write_text(".imageclf\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", "start")
        Path("source.py").write_text("2\n")
        Path("recipes").mkdir()
        Path("recipes/mine.yaml").write_text("a: 1\n")
        tags = record_source(Journal(FINGERPRINT).patch)
        changes = Journal(FINGERPRINT).patch.read_bytes()
    deps = [{"path": "source.py", "md5": "26ab0db90d72e28ad0ba1e22ee510510"}]
    lock = {"stages": {"train": {"cmd": "true", "deps": deps, "outs": []}}}
    files = {
        "changes.patch": changes,
        "params.yaml": b"seed: 7\n",
        "dvc.lock": json.dumps(lock).encode(),
    }
    description = RunDescription(FINGERPRINT, "a run", "tests", {}, {}, tags, 0)
    return Lineage(FINGERPRINT, record=Record(description), files=files)


@pytest.fixture
def part(project: Path, lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder, which is the current one."""
    monkeypatch.chdir(project / "part")
    dvc_module.shared_config.cache_clear()
    return project / "part"


def test_the_folder_holds_what_the_training_had(
    part: Path, lineage: Lineage, tmp_path: Path
) -> None:
    prepared = prepare(lineage, tmp_path / "again")
    assert prepared == tmp_path / "again/part"
    assert (prepared / "source.py").read_text() == "2\n"
    assert (prepared / "recipes/mine.yaml").read_text() == "a: 1\n"
    assert (prepared / "params.yaml").read_text() == "seed: 7\n"
    assert (prepared / "dvc.lock").read_bytes() == lineage.files["dvc.lock"]
    assert dvc("cache", "dir", at=prepared).stdout.strip() == str(prepared / ".dvc/cache")
    assert other_sources(lineage, prepared) == []
    (prepared / "source.py").write_text("3\n")
    assert other_sources(lineage, prepared) == ["source.py"]


def test_what_the_patch_leaves_out_is_told(part: Path, lineage: Lineage, tmp_path: Path) -> None:
    heading = b"left out: part/key.pem (it looks like a secret: x)\n"
    left_out = ["part/key.pem (it looks like a secret: x)"]
    source = source_of(patched(lineage, heading + lineage.files["changes.patch"]))
    assert (source.left_out, len(source.changed)) == (left_out, 2)
    nothing_else = patched(lineage, heading)
    source = source_of(nothing_else)
    assert (source.left_out, source.changed) == (left_out, [])
    assert (prepare(nothing_else, tmp_path / "again") / "source.py").read_text() == "1\n"


def test_a_commit_that_no_branch_holds_can_be_had(
    part: Path, lineage: Lineage, tmp_path: Path
) -> None:
    git("commit", "--quiet", "--amend", "--message", "another")
    git("reflog", "expire", "--expire=now", "--all")
    prepared = prepare(lineage, tmp_path / "again")
    assert (prepared / "source.py").read_text() == "2\n"


def tagged(lineage: Lineage, **tags: str) -> Lineage:
    assert lineage.record
    known = lineage.provenance.tags()
    origin = Provenance.from_tags({name: tag for name, tag in (known | tags).items() if tag})
    return replace(
        lineage,
        record=replace(
            lineage.record, description=replace(lineage.record.description, origin=origin)
        ),
    )


def test_what_cannot_be_rebuilt_gets_one_line_and_no_folder(
    part: Path, lineage: Lineage, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    files = dict(lineage.files)
    changes = files.pop("changes.patch")
    refused = {
        "not known from which commit": tagged(lineage, git_commit=""),
        "the commit a{40} is not in this repository": tagged(lineage, git_commit="a" * 40),
        "no changes.patch was kept": replace(lineage, files=files),
        "it was never registered": replace(lineage, files={"changes.patch": changes}),
        "changes.patch does not fit": replace(
            lineage, files=files | {"changes.patch": changes.replace(b"-1", b"-5")}
        ),
    }
    for reason, unusable in refused.items():
        with pytest.raises(UserError, match=reason):
            prepare(unusable, folder)
        assert not folder.exists()
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(UserError, match="again exists and is not empty: name another folder"):
        prepare(lineage, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]


PIPELINE = {
    "train": {
        "cmd": "mkdir -p models/classifier && cp model.json models/classifier && test ! -e broken",
        "deps": ["model.json"],
        "outs": ["models/classifier"],
    },
    "evaluate": {
        "cmd": "mkdir -p reports && echo '{\"accuracy\": 0.5}' > reports/metrics.json",
        "deps": ["models/classifier"],
        "outs": ["reports/metrics.json"],
    },
}


@pytest.fixture
def trained(project: Path) -> Lineage:
    """A small pipeline that ran in the current folder, and what it was made from."""
    Path("dvc.yaml").write_text(json.dumps({"stages": PIPELINE}))
    Path("model.json").write_text(json.dumps({"fingerprint": FINGERPRINT}))
    git("init", "--quiet")
    for command in (["init", "--quiet"], ["repro", "--quiet"]):
        assert dvc(*command).returncode == 0
    Path(".gitignore").write_text("mlflow*\n/models\n/reports\n")
    git("add", "--all")
    git("commit", "--quiet", "--message", "start")
    dvc_module.shared_config.cache_clear()
    tags = record_source(project / "none.patch")
    description = RunDescription(FINGERPRINT, "a run", "tests", {}, {}, tags, 0)
    files = {"params.yaml": b"", "dvc.lock": Path("dvc.lock").read_bytes()}
    return Lineage(FINGERPRINT, record=Record(description), files=files)


@pytest.mark.slow
def test_what_the_cache_lacks_comes_from_the_remote_or_is_made(
    trained: Lineage, tmp_path: Path
) -> None:
    def made(name: str, again: Again = "nothing") -> dict[str, bool]:
        result = rebuild(trained, tmp_path / name, 0.01, again, said.append)
        assert result
        assert result.identical
        return {out.recorded.path: out.made for out in result.outs}

    said: list[str] = []
    assert made("from the cache") == {"models/classifier": False, "reports/metrics.json": False}
    again = made("trained again", "training")
    assert again == {"models/classifier": True, "reports/metrics.json": False}
    assert dvc("remote", "add", "--default", "far", str(tmp_path / "far")).returncode == 0
    assert dvc("push", "--quiet", "models/classifier").returncode == 0
    shutil.rmtree(".dvc/cache/files")
    dvc_module.shared_config.cache_clear()
    assert made("from the remote") == {"models/classifier": False, "reports/metrics.json": True}
    assert not Path(".dvc/cache/files").exists()
    shutil.rmtree(tmp_path / "far")
    assert made("made") == {"models/classifier": True, "reports/metrics.json": True}


@pytest.mark.parametrize("path", ["reports/metrics.json", "models/classifier"])
def test_a_flipped_byte_in_the_cache_is_found_before_anything_is_made(
    trained: Lineage, tmp_path: Path, path: str
) -> None:
    out = next(out for out in trained.outs if out.path == path)
    place = copies_of(out, Path(".dvc/cache"), None)[0].path  # in the folder: of its one file
    flip(place)
    with pytest.raises(UserError, match=rf"{path}.* in the cache .* remove .*{place}"):
        rebuild(trained, tmp_path / "again", 0.01, "training", print)
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_stage_that_fails_leaves_the_folder_to_be_looked_at(
    trained: Lineage, tmp_path: Path
) -> None:
    Path("broken").touch()
    git("add", "broken")
    patch = tmp_path / "changes.patch"
    lineage = tagged(trained, **record_source(patch).tags())
    lineage = replace(lineage, files={**lineage.files, "changes.patch": patch.read_bytes()})
    assert rebuild(lineage, tmp_path / "again", 0.01, "everything", print) is None
    assert (tmp_path / "again/dvc.yaml").exists()


SAME = Rebuilt(Out("a", "train", "1" * 32), "1" * 32, made=True)
OTHER = replace(SAME, md5="2" * 32)
ELSEWHERE = {"hardware": ("one processor", "another")}
RESULT = Result([SAME], True, True, {}, (0.9, 0.9), 0.01)


@pytest.mark.parametrize(
    ("result", "agrees", "words"),
    [
        (RESULT, True, "the same: all 1 md5s agree; 1 of these outs were made again"),
        (
            replace(RESULT, same_version=False),
            False,
            "not the same: the registered version holds another file; "
            "test accuracy 0.9000 -> 0.9000",
        ),
        (
            replace(RESULT, outs=[SAME, OTHER]),
            False,
            "not the same: though the machine is the same; test accuracy 0.9000 -> 0.9000",
        ),
        (
            replace(RESULT, outs=[OTHER], machine=ELSEWHERE, accuracy=(0.9, 0.908)),
            True,
            "close: another machine, test accuracy 0.9000 -> 0.9080, at most 0.01 apart",
        ),
        (
            replace(RESULT, outs=[replace(OTHER, made=False)], machine=ELSEWHERE),
            False,
            "not the same: what was restored is not what dvc.lock records; "
            "test accuracy 0.9000 -> 0.9000",
        ),
        (
            replace(RESULT, outs=[OTHER], machine=ELSEWHERE, accuracy=(0.9, 0.92)),
            False,
            "not the same: more than 0.01 apart; test accuracy 0.9000 -> 0.9200",
        ),
        (
            replace(RESULT, outs=[OTHER], machine=ELSEWHERE, same_fingerprint=False),
            False,
            "not the same: data, source or parameters differ, so it has another fingerprint; "
            "test accuracy 0.9000 -> 0.9000",
        ),
        (
            replace(RESULT, outs=[OTHER], machine=ELSEWHERE, accuracy=(None, 0.9)),
            False,
            "not the same: its test accuracy was not kept; test accuracy not known -> 0.9000",
        ),
    ],
)
def test_only_another_machine_excuses_a_difference(
    result: Result, agrees: bool, words: str
) -> None:
    assert (result.identical or result.close) == agrees
    assert verdict(result) == words


def test_what_each_hash_proves_is_told() -> None:
    assert finding(SAME) == "made again, equal"
    assert finding(replace(SAME, made=False)) == "restored, hash checked"
    assert finding(OTHER) == f"made again, DIFFERENT: now {'2' * 32}"
    assert finding(replace(OTHER, md5=None)) == "made again, MISSING"


def patched(lineage: Lineage, patch: bytes) -> Lineage:
    return replace(lineage, files={**lineage.files, "changes.patch": patch})


def test_what_would_run_is_told(part: Path, lineage: Lineage) -> None:
    source = source_of(lineage)
    assert source.author == "test <test@example.org>: start"
    assert source.changed == ["A part/recipes/mine.yaml", "M part/source.py"]
    assert (source.origin, source.is_own) == ("the journal of this clone", False)
    assert source_of(patched(lineage, b"")).is_own
    git("update-ref", f"{JOURNALS}/{FINGERPRINT}", "HEAD")
    pulled = source_of(patched(lineage, b""))
    assert (pulled.origin, pulled.is_own) == ("a journal pulled from git's remote", False)
    tracked = source_of(replace(lineage, record=None, run=tracked_run(lineage)))
    assert (tracked.origin, tracked.is_own) == ("its run in MLflow", False)
    assert git_status() == ""


def git_status() -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", "*.lock"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tracked_run(lineage: Lineage) -> TrackedRun:
    return TrackedRun(
        name="x",
        experiment="y",
        status="FINISHED",
        started=0,
        fingerprint=FINGERPRINT,
        params={},
        metrics={},
        provenance=lineage.provenance,
        tags={},
        id="1" * 32,
        versions=[],
        files={},
    )


def new_file(path: str, content: str = "x", mode: str = "100644") -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{content}\n"
    ).encode()


@pytest.mark.parametrize(
    "patch",
    [
        new_file("../outside.py"),
        new_file("part/../../outside.py"),
        new_file("/tmp/outside.py"),
        new_file(".git/hooks/post-checkout"),
        new_file("part/.git/config"),
        new_file("part/.GIT/config"),
        new_file("outside.py"),
        new_file("part2/outside.py"),
        new_file("part/link", "/etc", mode="120000"),
        new_file("part/link", "..", mode="120000"),
        new_file("part/module", "Subproject commit " + "a" * 40, mode="160000"),
        new_file("part/link", "/etc", mode="120000") + new_file("part/link/x"),
    ],
)
def test_a_patch_that_changes_something_else_than_the_projects_files_is_refused(
    part: Path, lineage: Lineage, patch: bytes, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"^changes\.patch (is refused|does not fit)"):
        prepare(patched(lineage, patch), tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert [path for path in sorted(tmp_path.rglob("*")) if ".git" not in path.parts] == [
        path for path in before if ".git" not in path.parts
    ]


def source(is_own: bool) -> Source:
    changed, left_out = ["M src/x.py"], ["src/y.py (too large)"]
    return Source(Commit("a" * 40), "A <a@b>: first", "somewhere", changed, left_out, is_own)


def answer(is_own: bool, yes: bool, terminal: bool, reply: str) -> str:
    """What is printed where a rebuild asks; raises what it raises."""
    runner = CliRunner()

    @click.command()
    def ask() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.stdin, "isatty", lambda: terminal)
            ask_whether(source(is_own), yes)

    result = runner.invoke(ask, input=reply, catch_exceptions=False)
    return result.output


def test_nothing_of_another_source_runs_without_a_yes() -> None:
    told = answer(is_own=False, yes=True, terminal=False, reply="")
    assert told.splitlines() == [
        "source: the commit aaaaaaaaaaaa, A <a@b>: first",
        "known from: somewhere",
        "patched: M src/x.py",
        "not rebuildable from its patch, which leaves out src/y.py (too large)",
    ]
    assert answer(is_own=True, yes=False, terminal=False, reply="") == told
    with pytest.raises(UserError, match="add --yes to allow it"):
        answer(is_own=False, yes=False, terminal=False, reply="y\n")
    with pytest.raises(UserError, match="nothing was run"):
        answer(is_own=False, yes=False, terminal=True, reply="n\n")
    assert "Run this source? [y/N]" in answer(False, False, terminal=True, reply="y\n")
