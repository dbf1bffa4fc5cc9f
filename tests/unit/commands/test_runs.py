from pathlib import Path

from click.testing import CliRunner

from imageclf.cli import main
from imageclf.commands.runs import one_line, run_table
from imageclf.project.git import Commit
from imageclf.text import csv_cells
from imageclf.tracking.messages import End, Metrics, RunDescription
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.queries import RunSummary
from imageclf.tracking.runs import report

DAY = 86_400_000


def run(number: int, metrics: dict[str, float] | None = None, **tags: str) -> RunSummary:
    params = {"seed": "1", "train.learning_rate": str(0.1 * number)}
    params |= {"model.width": "32"} if number == 1 else {}
    return RunSummary(
        name="name",
        experiment="place",
        status="FINISHED",
        started=number * DAY,
        fingerprint=str(number) * 64,
        params=params,
        metrics=metrics or {},
        provenance=Provenance.from_tags(tags),
        tags=tags,
    )


def test_what_a_run_says_is_no_formula_and_obeyed_by_no_terminal() -> None:
    table = run_table([run(1, DVC_EXP_NAME="=1+1"), run(2, DVC_EXP_NAME="a\n\x1b[2J")], None)
    assert list(csv_cells(table)["experiment"]) == ["'=1+1", "a\n\x1b[2J"]
    assert list(one_line(table)["experiment"]) == ["=1+1", "a\\n\\x1b[2J"]
    assert "\x1b" not in one_line(table).to_string()


def test_a_row_says_what_the_run_is_and_what_only_it_has() -> None:
    runs = [
        run(2, {"test_accuracy": 0.5, "train_loss": 1.0}, DVC_EXP_NAME="oboe"),
        run(1, git_commit="a" * 40, git_dirty="true", restored_from_cache="true"),
    ]
    table = run_table(runs, "1" * 64)
    assert list(table["workspace"]) == [False, True]
    assert list(table["experiment"]) == ["oboe", ""]
    assert list(table["restored_from_cache"]) == ["false", "true"]
    assert [time.isoformat() for time in table["started"]] == [
        "1970-01-03T00:00:00+00:00",
        "1970-01-02T00:00:00+00:00",
    ]
    columns = [*table.columns]
    assert columns[-5:] == [
        "train.learning_rate",
        "model.width",
        "val_loss",
        "val_accuracy",
        "test_accuracy",
    ]
    assert "seed" not in columns
    assert table["test_accuracy"].tolist()[0] == 0.5


def test_no_runs_make_an_empty_table() -> None:
    assert run_table([], None).empty


def test_the_command_says_that_there_are_none(project: Path) -> None:
    result = CliRunner().invoke(main, ["runs"])
    assert (result.exit_code, result.output) == (0, "no runs yet: type `dvc repro`\n")


def test_outside_of_a_project_nothing_is_made(project: Path) -> None:
    (project / "mlflow.db").unlink()
    result = CliRunner().invoke(main, ["runs"])
    assert result.exit_code == 2
    assert "there is no dvc.yaml here: run this in the folder of the project" in result.output
    assert not list(project.iterdir())


def test_the_command_shows_the_workspace_and_shortens(project: Path) -> None:
    dirty = Provenance(Commit("c" * 40), dirty=True)
    restored = {"restored_from_cache": "true"}
    for number, more, origin in [(1, restored, Provenance()), (2, {}, dirty)]:
        fingerprint = str(number) * 64
        params = {"train.learning_rate": number / 10}
        tags = {"fingerprint": fingerprint} | more
        description = RunDescription(fingerprint, "x", "y", params, tags, origin, number * DAY)
        report(description, [Metrics(1, {"val_loss": 1 / 3}, 5), End("FINISHED", 9)])
    (project / "models/classifier").mkdir(parents=True)
    (project / "models/classifier/model.json").write_text(f'{{"fingerprint": "{"2" * 64}"}}')
    heading, newer, older = CliRunner().invoke(main, ["runs"]).output.splitlines()
    assert heading.split()[:4] == ["started", "experiment", "fingerprint", "commit"]
    assert newer.split()[0] == "*"
    assert "22222222 ccccccc+ finished" in newer
    assert "0.3333" in newer
    assert "restored" in older
    csv = CliRunner().invoke(main, ["runs", "--csv"]).output
    assert csv.splitlines()[1].startswith("True,1970-01-03 00:00:00+00:00,,2222")
    assert "0.3333333333333333" in csv
