import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier, Event, local

import pytest
from click.testing import CliRunner, Result
from mlflow.exceptions import MlflowException

from helpers.descriptions import DIGESTS, FINGERPRINT
from helpers.tracked import Registry
from imageclf.cli import main
from imageclf.files import UserError, sha256_file
from imageclf.tracking import registry
from imageclf.tracking.connection import Store
from imageclf.tracking.gate import Candidate, Champion, Decision, decide
from imageclf.tracking.registry import Promotion, downloaded_model, promote, retry_on_clash


def run_promote(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["promote", *arguments])


EIGHTY = "80.0 % of 100 test images (68.0 to 88.3 % with 99 % confidence)"


@pytest.fixture
def models(project: Path, onnx_file: Path) -> Registry:
    return Registry(project, onnx_file)


@pytest.fixture
def three(models: Registry) -> Registry:
    """Three versions, each better than the one before; the third is the champion."""
    for right, letter in [(50, "a"), (70, "b"), (90, "c")]:
        models.register(right, letter * 64)
    assert models.champion() == "3"
    return models


def test_the_registered_model_is_the_exported_file(models: Registry) -> None:
    done = models.register()
    client = models.client
    version = client.get_model_version_by_alias("digits", "champion")
    assert version.version == client.get_model_version_by_alias("digits", "challenger").version
    assert str(version.version) == done.version == "1"
    assert version.tags == {
        "fingerprint": FINGERPRINT,
        "sha256": sha256_file(models.onnx),
        "test_digest": DIGESTS["test"],
        "accuracy": "0.8",
        "promotion": f"promoted: there was no champion; {EIGHTY}",
    }
    (run,) = models.runs()
    assert version.run_id == run.info.run_id
    with downloaded_model("models:/digits@champion") as (folder, name):
        assert (folder / "model.onnx").read_bytes() == models.onnx.read_bytes()
        assert sorted(path.name for path in folder.glob("*.onnx*")) == ["model.onnx"]
        assert name == "digits/1"
        requirements = (folder / "requirements.txt").read_text()
    assert not folder.exists()
    assert "onnxruntime==" in requirements
    assert "torch" not in requirements
    assert "imageclf" not in requirements


def test_what_nobody_described_is_described(models: Registry) -> None:
    models.register()
    client = models.client
    version = client.get_model_version("digits", "1")
    assert version.description.startswith("Against the champion of that time: promoted")
    assert "probabilities are those of: a, b, c, d." in version.description
    assert f"/runs/{version.run_id}/artifacts/reports/evaluation/index.html" in version.description
    assert "as a, b, c, d." in client.get_registered_model("digits").description
    client.update_registered_model("digits", "mine")
    client.update_model_version("digits", "1", "mine too")
    models.register()
    assert client.get_registered_model("digits").description == "mine"
    assert client.get_model_version("digits", "1").description == "mine too"


def test_doing_it_again_changes_nothing(models: Registry) -> None:
    first = models.register()
    (before,) = models.runs()
    again = models.register()
    (run,) = models.runs()
    assert run.to_dictionary() == before.to_dictionary()
    assert again.version == first.version == "1"
    assert again.decision.promoted
    assert models.tag("1") == f"promoted: there was no champion; {EIGHTY}"
    assert len(models.client.search_model_versions()) == 1
    assert len(models.client.search_logged_models([run.info.experiment_id])) == 1


def test_a_run_that_replaces_another_keeps_its_model(models: Registry) -> None:
    models.register()
    (before,) = models.runs()
    models.register(evaluate__top_k=5)
    (run,) = models.runs()
    assert run.info.run_id != before.info.run_id
    assert run.outputs.to_dictionary() == before.outputs.to_dictionary()
    assert len(models.client.search_model_versions()) == 1
    # The version's own run is deleted now, but for `mlflow gc`.
    assert "better than the champion" in str(models.register(95, "a" * 64).decision)


def test_an_alias_that_was_lost_comes_back_to_the_newest_alone(models: Registry) -> None:
    for letter in "ab":
        models.register(80, letter * 64)
    models.client.delete_registered_model_alias("digits", "challenger")
    assert models.register(80, "a" * 64).aliases == ["champion"]
    assert models.register(80, "b" * 64).aliases == ["challenger"]


def test_only_a_better_model_becomes_the_champion(models: Registry) -> None:
    models.register(80)
    for letter, right, champion in [("a", 80, "1"), ("b", 82, "1"), ("c", 90, "4"), ("d", 60, "4")]:
        done = models.register(right, letter * 64)
        newest = models.client.get_model_version_by_alias("digits", "challenger")
        assert str(newest.version) == done.version
        assert newest.tags["promotion"] == str(done.decision)
        assert models.champion() == champion
    assert len(models.runs()) == 5
    assert models.tag("3").endswith("right 2 to 0 times, which may be chance (p = 0.25)")
    assert models.tag("4", "replaced") == "1"
    # What made the first one the champion is not undone by what is the champion now.
    assert not models.register(80).decision.promoted
    assert models.tag("1") == f"promoted: there was no champion; {EIGHTY}"


def test_a_champion_of_other_means_is_not_beaten(models: Registry) -> None:
    models.client.create_registered_model("digits")
    models.client.create_model_version("digits", models.onnx.parent.as_uri())
    models.client.set_registered_model_alias("digits", "champion", "1")
    done = models.register()
    assert str(done.decision).startswith("refused: the champion's predictions are not available")
    assert done.aliases == ["challenger"]
    models.client.delete_registered_model_alias("digits", "champion")
    assert run_promote("digits/2").exit_code == 0


def test_a_champion_whose_run_was_removed_is_not_beaten(models: Registry) -> None:
    models.register(50)
    (run,) = models.runs()
    models.client.delete_run(run.info.run_id)
    store = f"sqlite:///{models.folder}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store]
    subprocess.run(command, check=True, capture_output=True)
    done = models.register(90, "a" * 64)
    assert "predictions are not available" in str(done.decision)
    assert models.champion() == "1"


def test_a_model_tested_on_other_data_is_another_version(models: Registry) -> None:
    models.register(50)
    assert "other data" in str(models.register(90, "a" * 64, test_digest="9" * 64).decision)
    anew = models.register(50, test_digest="9" * 64)
    assert (anew.version, anew.aliases) == ("3", ["challenger", "champion"])
    result = run_promote("digits/2")
    assert result.exit_code == 0
    assert models.tag("2", "replaced") == "3"


def test_the_same_file_under_another_name_is_another_version(models: Registry) -> None:
    assert models.register(name="digits").version == "1"
    assert models.register(name="it's mine").version == "1"
    assert models.register(name="it's mine").version == "1"
    assert run_promote("it's mine").output.splitlines() == [
        f"promoted: version 1: it is the champion's own model; {EIGHTY}",
        "champion: version 1",
    ]


def test_going_back_and_forward_again(three: Registry) -> None:
    assert run_promote("--back", "digits").output == "champion: version 2, no longer version 3\n"
    assert run_promote("--back", "models:/digits").exit_code == 0
    assert three.champion() == "1"
    assert three.tag("3") == "taken back: version 2 is the champion again"
    result = run_promote("--back", "digits")
    assert result.exit_code == 2
    assert result.output == "error: digits version 1 replaced no champion: there is none before\n"
    result = run_promote("digits")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "promoted: version 3: better than the champion: where they differ, right 40 to 0 times "
        "(p < 0.000001); 90.0 % of 100 test images (79.6 to 95.4 % with 99 % confidence)",
        "champion: version 3",
    ]
    assert three.tag("3", "replaced") == "1"


def test_registering_does_not_undo_going_back(three: Registry) -> None:
    run_promote("--back", "digits")
    done = three.register(90, "c" * 64)
    again = "it was taken back: `imageclf promote digits/3` asks the gate again"
    assert done.decision.reasons == (again,)
    assert three.champion() == "2"
    assert three.tag("3") == "taken back: version 2 is the champion again"


def test_a_refusal_gives_the_reasons_and_is_kept(three: Registry) -> None:
    result = run_promote("models:/digits/1")
    assert result.exit_code == 2
    reason = "no better than the champion: where they differ, right 0 to 40 times"
    assert result.output.splitlines() == [f"refused: version 1: {reason}", "champion: version 3"]
    assert three.tag("1") == f"refused: {reason}"
    assert three.champion() == "3"


def test_a_version_whose_run_lacks_the_evidence_is_refused(models: Registry) -> None:
    models.client.create_registered_model("digits")
    models.client.create_model_version("digits", models.onnx.parent.as_uri())
    result = run_promote("digits/1")
    assert result.exit_code == 2
    assert "its run does not hold what the gate reads" in result.output
    assert result.output.endswith("champion: none\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["digits/9"], "Model Version \\(name=digits, version=9\\) not found"),
        (["nothing"], "nothing names no model: give NAME"),
        (["models:/digits/x"], "models:/digits/x names no model: give NAME"),
        (["--back", "digits/3"], "digits/3: say only the name, digits"),
        (["--back", "nothing"], "Registered Model with name=nothing not found"),
    ],
)
def test_what_cannot_be_promoted_is_told_in_a_line(
    models: Registry, arguments: list[str], reason: str
) -> None:
    models.register()
    result = run_promote(*arguments)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(UserError, match=reason):
        raise UserError(line)


def test_a_model_without_champion_has_none_to_go_back_to(models: Registry) -> None:
    models.register()
    models.client.delete_registered_model_alias("digits", "champion")
    result = run_promote("--back", "digits")
    assert result.exit_code == 2
    assert "digits has no champion: `imageclf promote digits` asks for one" in result.output


@pytest.mark.slow
def test_the_gate_reads_from_a_server_too(
    models: Registry,
    mlflow_server: Callable[..., subprocess.Popen[bytes]],
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = f"sqlite:///{models.folder}/mlflow.db"
    arguments = ["--backend-store-uri", store, "--artifacts-destination", "kept", "--workers", "1"]
    mlflow_server(free_port, "server", *arguments)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    for right, letter in [(50, "a"), (70, "b"), (65, "c")]:
        models.register(right, letter * 64)
    assert models.champion() == "2"
    assert run_promote("digits/1").exit_code == 2
    assert run_promote("--back", "digits").exit_code == 0
    assert run_promote("digits").exit_code == 0
    assert models.champion() == "3"


@pytest.mark.parametrize(("second", "third", "champion"), [(70, 90, 3), (90, 70, 2), (70, 72, 2)])
@pytest.mark.parametrize("one_ends_first", [False, True])
def test_of_two_promotions_at_once_the_better_one_stays(
    models: Registry,
    monkeypatch: pytest.MonkeyPatch,
    second: int,
    third: int,
    champion: int,
    one_ends_first: bool,
) -> None:
    models.register(50)
    monkeypatch.setattr(registry, "decide", lambda *_: Decision(False, ("not yet",)))
    models.register(second, "b" * 64)
    models.register(third, "c" * 64)
    monkeypatch.setattr(Store, "lock", lambda _: nullcontext())  # as at a server
    both, first_ended = Barrier(2), Event()
    met = local()

    def decide_at_once(candidate: Candidate, holder: Champion | None) -> Decision:
        if not hasattr(met, "once"):
            met.once = both.wait(30)
            if one_ends_first and met.once == 0:
                assert first_ended.wait(60)
        return decide(candidate, holder)

    def promoted(version: int) -> Promotion:
        try:
            return promote(f"digits/{version}")
        finally:
            first_ended.set()

    monkeypatch.setattr(registry, "decide", decide_at_once)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(promoted, (2, 3)))
    loser = 5 - champion
    assert models.champion() == str(champion)
    assert models.tag(str(champion)).startswith("promoted")
    assert models.tag(str(champion), "replaced") == "1"
    wanted = f"refused: version {champion} was promoted at the same time"
    assert models.tag(str(loser)).startswith(wanted)


def test_no_such_model(project: Path) -> None:
    not_found = "Registered Model with name=nothing not found"
    with pytest.raises(UserError, match=not_found), downloaded_model("models:/nothing@champion"):
        pass


def test_a_change_that_another_one_broke_off_is_made_again() -> None:
    answers = iter([MlflowException("(psycopg.errors.UniqueViolation) duplicate key"), "made"])

    def change() -> str:
        answer = next(answers)
        if isinstance(answer, MlflowException):
            raise answer
        return answer

    assert retry_on_clash(change) == "made"

    def refuse() -> str:
        raise MlflowException("no space left")

    with pytest.raises(MlflowException, match="no space"):
        retry_on_clash(refuse)
