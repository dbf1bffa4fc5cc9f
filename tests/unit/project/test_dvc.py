import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from helpers.params import ROOT
from imageclf.files import UserError
from imageclf.project import dvc as dvc_module
from imageclf.project.dvc import (
    dvc,
    has_remotes,
    laid_out,
    missing,
    missing_on_remote,
    read_outs,
)
from imageclf.project.git import remote
from imageclf.project.lock import (
    Out,
    bare_pipeline,
    lacks,
    md5_of,
    recorded_outs,
    recorded_sources,
)
from imageclf.team.sharing import run_dvc

FILE = "figures.json"
PIPELINE = {
    "make": {"cmd": f"mkdir -p many && echo 1 > many/a && cp source {FILE}", "deps": ["source"]},
    "read": {"cmd": f"cat many/a {FILE} > copy", "deps": ["many/a", FILE], "outs": ["copy"]},
}
PIPELINE["make"]["outs"] = ["many", FILE]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside of git in which DVC ran two small stages."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "dvc.yaml").write_text(json.dumps({"stages": PIPELINE}))
    (folder / "source").write_text('{"accuracy": 0.5}')
    for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        done = dvc(*command, at=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def ran(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    folder = tmp_path / "ran"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    dvc_module.shared_config.cache_clear()
    return folder


def test_a_stage_may_read_nothing_that_counts() -> None:
    told = recorded_outs(
        f"stages:\n  a:\n    cmd: b\n    deps:\n    outs:\n    - {{path: c, md5: {32 * 'd'}}}\n"
    )
    assert told == [Out("c", "a", 32 * "d")]


def test_a_folder_of_code_is_what_it_is_to_dvc(project: Path) -> None:
    stage = {"cmd": "cp code/b/c.py copy", "deps": ["code"], "outs": ["copy"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": stage}}))
    shutil.copy(ROOT / ".dvcignore", ".")
    Path("code/b").mkdir(parents=True)
    for name in ("a.py", "b/c.py", "b-c.py", "page.html.j2", "Ä.py"):
        (Path("code") / name).write_text(name)
    assert dvc("init", "--no-scm", "--quiet").returncode == 0
    assert dvc("repro", "--quiet").returncode == 0
    recorded = recorded_sources(lock())
    assert recorded == {"code": md5_of(Path("code"))}
    for name in ("__pycache__/a.pyc", "b/__pycache__/c.pyc", ".a.py.swp", "b/c.py~", "#a.py#"):
        (Path("code") / name).parent.mkdir(exist_ok=True)
        (Path("code") / name).write_text("no source")
    assert json.loads(dvc("status", "--json").stdout) == {}
    assert recorded == {"code": md5_of(Path("code"))}
    Path("code/a.py").rename("code/d.py")
    assert json.loads(dvc("status", "--json").stdout) != {}
    assert recorded != {"code": md5_of(Path("code"))}


def lock() -> str:
    return Path("dvc.lock").read_text()


def files() -> dict[str, str]:
    return {"dvc.yaml": bare_pipeline(lock()), "dvc.lock": lock()}


def in_cache(out: Out) -> Path:
    return Path(".dvc/cache/files/md5") / out.md5[:2] / out.md5[2:]


def test_a_lock_tells_outs_by_stage_and_sources(ran: Path) -> None:
    outs = recorded_outs(lock())
    assert [(out.path, out.stage) for out in outs] == [
        (FILE, "make"),
        ("many", "make"),
        ("copy", "read"),
    ]
    assert all(in_cache(out).exists() for out in outs)
    assert set(recorded_sources(lock())) == {"source"}
    assert recorded_outs("schema: '2.0'\n") == []
    with pytest.raises(UserError, match=r"dvc\.lock is not valid YAML"):
        recorded_outs("{")


def test_what_the_cache_lacks_is_told_and_the_rest_can_be_read(ran: Path) -> None:
    with laid_out(files()) as folder:
        assert missing(folder) == set()
        assert read_outs(folder, [FILE]) == {FILE: {"accuracy": 0.5}}
    in_cache(recorded_outs(lock())[0]).unlink()
    with laid_out(files()) as folder:
        assert missing(folder) == {FILE}
        assert read_outs(folder, [FILE, "many/a"]) == {"many/a": 1}


def test_a_folder_that_lacks_a_file_is_lacking() -> None:
    assert lacks({"many/a"}, "many")
    assert lacks({"many"}, "many")
    assert not lacks({"manywhere", "other/many"}, "many")


def test_a_remote_tells_what_it_has(ran: Path) -> None:
    assert not has_remotes()
    with laid_out(files()) as folder, pytest.raises(UserError, match="there is no default remote"):
        missing_on_remote(folder)
    add_remote("../remote")
    assert dvc("push", "--quiet", "many").returncode == 0
    with laid_out(files()) as folder:
        assert missing_on_remote(folder) == {FILE, "copy"}


def add_remote(url: str, **options: str) -> None:
    assert dvc("remote", "add", "--default", "far", url).returncode == 0
    for name, value in options.items():
        assert dvc("remote", "modify", "far", name, value).returncode == 0
    dvc_module.shared_config.cache_clear()


@pytest.mark.slow
def test_a_silent_remote_is_waited_for_some_seconds_only(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_module, "PATIENCE_S", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, laid_out(files()):
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        add_remote("s3://bucket", endpointurl=endpoint, access_key_id="a", secret_access_key="b")
        begun = time.monotonic()
        with (
            laid_out(files()) as folder,
            pytest.raises(UserError, match="far does not answer within 4 s"),
        ):
            missing_on_remote(folder)
    assert time.monotonic() - begun < 30


def test_outside_of_a_project_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dvc_module.shared_config.cache_clear()
    with pytest.raises(UserError, match="this is no DVC project"), laid_out({}):
        pass


def test_a_project_without_git_gets_a_line_of_ours(project: Path) -> None:
    """As a ZIP file from a website has it."""
    Path(".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", ".dvc")
    for ask in (lambda: dvc("data", "status"), lambda: run_dvc("status"), remote):
        with pytest.raises(UserError, match="in no git repository, .* ZIP file: clone it, or type"):
            ask()
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert dvc("data", "status").returncode == 0
    assert run_dvc("status", "--quiet")
