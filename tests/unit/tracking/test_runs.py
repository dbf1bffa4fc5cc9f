import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from helpers.descriptions import DIGESTS, FINGERPRINT, described, epoch
from helpers.loopback import FileServer, Proxy, Status, running
from helpers.tracked import EPOCHS, FinishedTraining
from imageclf.files import UserError
from imageclf.project.folder import project_root
from imageclf.project.git import Commit
from imageclf.tracking.connection import shown, tracking_uri
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import Dataset, End, File, Metrics, Note, Patch, encode
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.queries import list_runs
from imageclf.tracking.runs import end_abandoned, report, tag_snapshot
from imageclf.tracking.tags import NOTE, SNAPSHOT, WHOLE, whole


@pytest.fixture
def files(project: Path, onnx_file: Path) -> FinishedTraining:
    return FinishedTraining(project, onnx_file)


def test_the_store_is_in_the_projects_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(project_root()) == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert tracking_uri(project_root()) == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(project_root()) == "http://127.0.0.1:1"


def test_the_run_says_all_that_the_files_say(files: FinishedTraining) -> None:
    (files.folder / "reports").mkdir()
    (files.folder / "reports/metrics.json").write_text("{}")
    (files.folder / "params.yaml").write_text("seed: 1\n")
    splits = [
        Dataset(name, "digits", DIGESTS[name], f"data/prepared/{name}.images.npy", 10)
        for name in DIGESTS
    ]
    items = [*splits, File(Path("reports"), "reports"), File(Path("params.yaml"))]
    description = described()
    done = files.synchronise(description, items)
    (run,) = files.runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == done.run_name == "mlp lr 0.003"
    assert run.data.params == {name: str(value) for name, value in description.params.items()}
    assert run.data.params["train.learning_rate"] == "0.003"
    expected = {"fingerprint": FINGERPRINT}
    expected |= {f"data.{key}": DIGESTS[key][:12] for key in DIGESTS}
    expected |= {f"{WHOLE}data.{key}": DIGESTS[key] for key in DIGESTS}
    assert expected.items() <= run.data.tags.items()
    assert files.history("train/loss") == [(n, 1 / n, 1000 + n) for n in EPOCHS]
    assert run.data.metrics["test/accuracy"] == 0.9
    inputs = {each.tags[0].value: each.dataset.digest for each in run.inputs.dataset_inputs}
    assert inputs == {name: DIGESTS[name][:8] for name in DIGESTS}
    kept = files.folder / "mlartifacts" / run.info.run_id / "artifacts"
    assert (kept / "reports/metrics.json").read_text() == "{}"
    assert (kept / "params.yaml").exists()
    assert not (files.folder / "mlruns").exists()


def test_doing_it_again_changes_nothing(files: FinishedTraining) -> None:
    split = Dataset("train", "digits", DIGESTS["train"], "data/prepared", 10)
    first = files.synchronise(items=[split])
    (before,) = files.runs()
    assert files.synchronise(items=[split]).to_proto() == first.to_proto()
    (run,) = files.runs()
    assert run.to_dictionary() == before.to_dictionary()
    assert [step for step, _, _ in files.history("train/loss")] == [*EPOCHS]
    assert [step for step, _, _ in files.history("test/accuracy")] == [0]


def test_it_fills_the_gap_of_a_training_that_was_cut_off(files: FinishedTraining) -> None:
    live = replace(described(), origin=Provenance(device="cuda:0"), started=500)
    timed = Metrics(1, epoch(1).values | {"seconds": 3.5}, 700)
    report(live, [timed, End("KILLED", 800)])
    (before,) = files.runs()
    assert (before.info.status, before.info.start_time) == ("KILLED", 500)
    files.synchronise(replace(described(), origin=Provenance(device="cpu", hardware="here")))
    (run,) = files.runs()
    assert run.info.run_id == before.info.run_id
    assert run.info.status == "FINISHED"
    assert files.history("train/loss") == [(1, 1.0, 700), (2, 0.5, 1002), (3, 1 / 3, 1003)]
    assert files.history("time/seconds") == [(1, 3.5, 700)]
    assert run.data.tags["device"] == "cuda:0"
    assert run.data.tags["hardware"] == "here"


def test_a_retry_continues_the_unfinished_run(files: FinishedTraining) -> None:
    report(described(), [epoch(1), End("FAILED", 2000)])
    report(described(), [epoch(1)])
    (run,) = files.runs()
    assert run.info.status == "RUNNING"
    report(described(), [epoch(1), epoch(2), End("FINISHED", 3000)])
    (run,) = files.runs()
    assert (run.info.status, run.info.end_time) == ("FINISHED", 3000)
    assert [step for step, _, _ in files.history("train/loss")] == [1, 2]


def test_the_run_keeps_the_time_at_which_its_training_ended(files: FinishedTraining) -> None:
    report(described(), [*map(epoch, EPOCHS), End("FINISHED", 3000)])
    files.synchronise()
    assert files.runs()[0].info.end_time == 3000


def test_a_run_that_mlflow_never_saw_end_ends_when_its_training_did(
    files: FinishedTraining,
) -> None:
    report(described(), [*map(epoch, EPOCHS)])
    files.synchronise()
    (run,) = files.runs()
    assert (run.info.status, run.info.end_time) == ("FINISHED", 4000)


def test_a_restored_training_is_marked_until_it_is_trained_here(files: FinishedTraining) -> None:
    files.synchronise(restored=True)
    assert files.runs()[0].data.tags["restored_from_cache"] == "true"
    files.synchronise(restored=False)
    assert "restored_from_cache" not in files.runs()[0].data.tags


def test_another_value_outside_the_fingerprint_replaces_the_run(files: FinishedTraining) -> None:
    live = Metrics(1, epoch(1).values | {"seconds": 3.5}, 700)
    report(described(), [live, End("FINISHED", 3000)])
    files.synchronise()
    (before,) = files.runs()
    files.synchronise(described(evaluate__top_k=5))
    (run,) = files.runs()
    assert run.info.run_id != before.info.run_id
    assert run.data.params["evaluate.top_k"] == "5"
    assert (run.info.status, run.info.end_time) == ("FINISHED", 3000)
    assert run.info.start_time == before.info.start_time
    assert files.history("time/seconds") == [(1, 3.5, 700)]
    assert run.data.metrics == before.data.metrics


def test_files_that_say_something_else_than_the_run_replace_it(files: FinishedTraining) -> None:
    report(described(), [epoch(1, loss=7.0), End("FINISHED", 3000)])
    files.synchronise()
    assert [value for _, value, _ in files.history("train/loss")] == [1, 1 / 2, 1 / 3]


def test_a_run_that_replaces_another_is_of_no_snapshot_yet(files: FinishedTraining) -> None:
    tag_snapshot(files.synchronise(), "1")
    assert files.runs()[0].data.tags[SNAPSHOT] == "1"
    files.synchronise(described(evaluate__top_k=5))
    assert SNAPSHOT not in files.runs()[0].data.tags


def test_a_run_of_an_earlier_form_is_replaced(files: FinishedTraining) -> None:
    first = files.synchronise()
    old = {"fingerprint": FINGERPRINT, "data.train": DIGESTS["train"], "snapshot": "1"}
    name = f"fashion_mnist mlp {FINGERPRINT[:8]}"
    files.client.delete_run(first.run_id)
    earlier = files.client.create_run(first.experiment_id, 500, old, name).info.run_id
    files.client.log_metric(earlier, "train_loss", 1.0, 700, 1)
    files.client.log_metric(earlier, "seconds", 3.5, 700, 1)
    assert [run.is_present for run in list_runs()] == [False]
    assert list_runs()[0].metrics == {"train_loss": 1.0, "seconds": 3.5}
    files.synchronise()
    (run,) = files.runs()
    assert (run.info.run_name, run.info.start_time) == ("mlp lr 0.003", 500)
    assert files.history("time/seconds") == [(1, 3.5, 700)]
    assert not {"train_loss", "seconds"} & run.data.metrics.keys()
    assert run.data.tags["data.train"] == DIGESTS["train"][:12]
    assert "snapshot" not in run.data.tags
    (found,) = list_runs()
    assert found.is_present
    assert found.metrics["train_loss"] == 1 / 3


def test_the_first_metric_is_one_to_compare(files: FinishedTraining) -> None:
    report(described(), [Metrics(1, {"learning_rate": 0.1, "seconds": 1.0, "val_loss": 0.5}, 1)])
    assert next(iter(files.runs()[0].data.metrics)) == "val/loss"


def test_what_a_user_wrote_stays(files: FinishedTraining) -> None:
    files.synchronise(items=[Note("one")])
    files.synchronise(items=[Note("another")])
    (run,) = files.runs()
    assert run.data.tags[NOTE] == "another"
    files.client.set_tag(run.info.run_id, NOTE, "mine")
    files.client.update_run(run.info.run_id, name="my run")
    files.synchronise(described().named(0.9), [Note("third")])
    (run,) = files.runs()
    assert (run.info.run_name, run.data.tags[NOTE]) == ("my run", "mine")


def test_a_run_keeps_the_patch_of_its_own_commit(files: FinishedTraining) -> None:
    patch = files.folder / "changes.patch"
    mine, another = Commit("a" * 40), Commit("b" * 40)
    for commit in (mine, another):
        patch.write_text(commit)
        origin = Provenance(commit)
        files.synchronise(replace(described(), origin=origin), [Patch(patch, commit=commit)])
    (run,) = files.runs()
    assert whole(run.data.tags)["git_commit"] == mine
    kept = files.folder / "mlartifacts" / run.info.run_id / "artifacts"
    assert (kept / "changes.patch").read_text() == mine


def test_only_what_nothing_trains_is_ended(files: FinishedTraining) -> None:
    stranger = replace(described(), fingerprint="e" * 64, tags={"fingerprint": "e" * 64})
    report(stranger, [])
    report(described(), [epoch(1)])
    journal = Journal(FINGERPRINT)
    with journal.training(described(), 0):
        journal.say(epoch(1))
        assert end_abandoned() == []
    assert end_abandoned() == [described().name]
    runs = {run.data.tags["fingerprint"]: run.info for run in files.runs()}
    assert (runs[FINGERPRINT].status, runs[FINGERPRINT].end_time) == ("KILLED", 1001)
    assert runs["e" * 64].status == "RUNNING"
    assert end_abandoned() == []


def test_every_run_is_listed_the_newest_first(files: FinishedTraining) -> None:
    assert list_runs() == []
    for number in range(3):
        fingerprint = str(number) * 64
        tags = {"fingerprint": fingerprint}
        description = replace(described(), fingerprint=fingerprint, tags=tags, started=number + 1)
        report(replace(description, experiment=f"place {number % 2}"), [End("FAILED", 9)])
    files.client.create_run("0")  # of something else
    found = list_runs()
    assert [run.started for run in found] == [3, 2, 1]
    assert [run.experiment for run in found] == ["place 0", "place 1", "place 0"]
    assert found[0].status == "FAILED"
    assert found[0].params["train.learning_rate"] == "0.003"


def test_a_dvc_experiment_names_the_run(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.synchronise()
    monkeypatch.setenv("DVC_EXP_NAME", "gaudy-oboe")
    assert files.synchronise().run_name == "gaudy-oboe · mlp lr 0.003"
    (run,) = files.runs()
    assert run.info.run_name == "gaudy-oboe · mlp lr 0.003"
    assert run.data.tags["DVC_EXP_NAME"] == "gaudy-oboe"


def test_more_points_than_one_request_takes(files: FinishedTraining) -> None:
    points = [epoch(number) for number in range(1, 702)]
    report(described(), [End("FINISHED", 1)])
    files.synchronise(items=points)
    assert [step for step, _, _ in files.history("val/loss")] == [*range(1, 702)]


def test_a_deleted_experiment_is_named(files: FinishedTraining) -> None:
    files.synchronise()
    (run,) = files.runs()
    files.client.delete_experiment(run.info.experiment_id)
    with pytest.raises(UserError, match="the experiment imageclf was deleted in MLflow"):
        files.synchronise()


def test_a_server_that_is_not_there(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        files.synchronise()
    message = "the tracking server http://127.0.0.1:9 does not answer (Connection refused)"
    assert str(caught.value) == message


def test_a_server_that_hangs_up(files: FinishedTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Proxy(upstream=9)) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address("me", "secret"))
        with pytest.raises(UserError) as caught:
            files.synchronise()
    place, reason = proxy.url, "Remote end closed connection without response"
    assert str(caught.value) == f"the tracking server {place} does not answer ({reason})"


def test_something_else_than_a_tracking_server(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Proxy(upstream=9)) as proxy:
        proxy.answer = 200, b"<html>Welcome\nto our hotel</html>"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address("me", "secret"))
        with pytest.raises(
            UserError, match=r"not in a valid JSON format.*Welcome to our"
        ) as caught:
            files.synchronise()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (401, "refuses access: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "refuses access: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (503, "does not answer \\(too many 503 error responses\\)"),
        (404, "failed with error code 404"),
    ],
)
def test_a_server_that_refuses(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    with running(FileServer()) as server:
        server.faults = [Status(code)] * 5
        address = server.url.replace("//", "//me:secret@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(UserError, match=message) as caught:
            files.synchronise()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no database" * 20, None])
def test_a_database_that_cannot_be_used(files: FinishedTraining, content: bytes | None) -> None:
    path = files.folder / "mlflow.db"
    path.unlink()
    path.write_bytes(content) if content else path.mkdir()
    started = time.monotonic()
    with pytest.raises(UserError, match=f"the tracking database sqlite:///{path} cannot be used"):
        files.synchronise()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("uri", ["foo://x", "./mlruns", "postgresql+nothing://me:secret@host/x"])
def test_a_store_of_no_use(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as caught:
        files.synchronise()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *(f"http://me:alpha{sign}bravo@127.0.0.1:9" for sign in "#/?\\[] "),
        "http:/me:alphabravo@127.0.0.1:9",
        "me:alphabravo@127.0.0.1:9",
        "postgresql://me:alpha bravo@127.0.0.1:9/runs",
        "databricks://me:alphabravo@host",
    ],
)
def test_a_password_that_tears_its_address_is_not_told(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI cannot be read: write") as caught:
        files.synchronise()
    assert "alpha" not in str(caught.value)
    assert "bravo" not in str(caught.value)


def test_a_database_in_a_folder_with_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////home/me@work/what is this?/mlflow.db")
    assert tracking_uri(Path()).endswith("/home/me@work/what is this?/mlflow.db")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://me:secret@host:5000/x?token=1", "http://host:5000/x"),
        ("https://me:p@ss/word@host", "https://host"),
        ("sqlite:////root/mlflow.db", "sqlite:////root/mlflow.db"),
        ("to http://a:b@c/d failed: http://e", "to http://c/d failed: http://e"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_importing_the_library_side_does_not_import_mlflow() -> None:
    modules = "imageclf.tracking.live, imageclf.tracking.reporter"
    script = f"import sys, {modules}; print('mlflow' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_several_processes_on_a_fresh_store_make_one_run(project: Path) -> None:
    (project / "mlflow.db").unlink()
    (project / "dvc.yaml").touch()
    lines = [encode(each) for each in (described(), epoch(1))]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "imageclf.tracking.reporter"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin
        child.stdin.write("\n".join(lines) + "\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=120) == (None, "")
        assert child.returncode == 0
    client = MlflowClient(tracking_uri(project))
    experiment = client.get_experiment_by_name("imageclf")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1


def test_what_a_kill_left_of_a_database_in_the_making_does_no_harm(project: Path) -> None:
    (project / "mlflow.db").unlink()
    (project / "dvc.yaml").touch()
    for left in (".mlflow.db.tmp", ".mlflow.db.tmp-journal"):
        (project / left).write_bytes(b"half a database")
    assert list_runs() == []
    assert not list(project.glob(".mlflow.db.*"))


def test_a_parameter_longer_than_mlflow_keeps_makes_no_other_run(files: FinishedTraining) -> None:
    pattern = "|".join(f"patient_{number:05}_" for number in range(500))
    description = replace(described(), params={"data.group_pattern": pattern})
    first = files.synchronise(description)
    assert files.synchronise(description).run_id == first.run_id
    (run,) = files.runs()
    assert run.data.params == {"data.group_pattern": pattern[:6000]}


@pytest.mark.parametrize("name", ["a%20b", "what?", "100% done", "a#b", "it's", "a;b&c=[d]", "猫"])
def test_any_name_of_the_projects_folder(
    name: str, tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, onnx_file: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text("seed: 1\n")
    shutil.copy(migrated, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    files = FinishedTraining(folder, onnx_file)
    run = files.synchronise(items=[File(Path("params.yaml"))])
    assert (folder / "mlartifacts" / run.run_id / "artifacts/params.yaml").exists()
    assert [each.fingerprint for each in list_runs()] == [FINGERPRINT]
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_database_is_made_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a%20b?"
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert list_runs() == []
    assert sorted(each.name for each in folder.iterdir()) == [
        "dvc.yaml",
        "mlflow.db",
        "mlflow.db.lock",
    ]


def test_mlflow_in_a_folder_that_it_cannot_use_is_told(project: Path, tmp_path: Path) -> None:
    import mlflow

    packages = tmp_path / "100%"
    packages.symlink_to(Path(mlflow.__file__).parents[1])
    program = (
        f"import sys; sys.path.insert(0, {str(packages)!r})\n"
        "from imageclf.tracking.queries import list_runs\n"
        "list_runs()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].endswith(
        "MLflow is installed in a folder with % in its path, and can use no database from there: "
        "move the project"
    )
