import re
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from imageclf.cli import main
from imageclf.commands.runs import run_lines, run_table
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
    found = [run(1, DVC_EXP_NAME="=1+1"), run(2, DVC_EXP_NAME="a\n\x1b[2J")]
    assert list(csv_cells(run_table(found, None))["experiment"]) == ["'=1+1", "a\n\x1b[2J"]
    told = [*run_lines(found, None, False, 80)]
    assert [line.split()[-1] for line in told if "1970" in line] == ["=1+1", "a\\n\\x1b[2J"]


def test_runs_are_told_by_data_set_with_what_differs_below() -> None:
    first = run(1, {"test_accuracy": 0.8714, "val_accuracy": 1.0}, git_commit="a" * 40)
    second = replace(run(2), status="FAILED", tags={"DVC_EXP_NAME": "oboe"})
    other = replace(run(3), params={"data.name": "digits"})
    first.params["model.name"] = "mlp"
    second.params["model.name"] = "mlp"
    told = [*run_lines([second, first, other], "1" * 64, False, 80)]
    assert [re.sub(r"1970-01-\d\d \d\d:\d\d", "1970-01-02 00:00", line) for line in told] == [
        "unknown data",
        "     test      val  started           model     commit",
        "                    1970-01-02 00:00  22222222            failed oboe",
        "                    train.learning_rate 0.2",
        "*  87.1 %  100.0 %  1970-01-02 00:00  11111111  aaaaaaa",
        "                    train.learning_rate 0.1, model.width 32",
        "",
        "digits",
        "     test      val  started           model     commit",
        "                    1970-01-02 00:00  33333333",
    ]
    every = [*run_lines([second, first], None, True, 60)]
    assert "                    seed 1, train.learning_rate 0.1," in every
    assert max(map(len, every)) <= 60


def test_runs_of_another_test_split_are_another_group() -> None:
    tested = [run(number, **{"data.test": letter * 64}) for number, letter in [(2, "a"), (1, "b")]]
    told = [*run_lines([run(3), *tested], None, False, 80)]
    assert [line.split()[-1] for line in told if "split" in line or "1970" in line] == [
        *("aaaaaaaa", "33333333", "22222222"),
        *("bbbbbbbb", "11111111"),
    ]


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
    assert (result.exit_code, result.output) == (0, "no runs yet: type `imageclf run`\n")


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
    _, _, newer, its, older, _ = CliRunner().invoke(main, ["runs"]).output.splitlines()
    assert newer.split()[0] == "*"
    assert newer.endswith("  22222222  ccccccc+")
    assert its.strip() == "train.learning_rate 0.2"
    assert older.endswith("  11111111            restored")
    csv = CliRunner().invoke(main, ["runs", "--csv"]).output
    assert csv.splitlines()[1].startswith("True,1970-01-03 00:00:00+00:00,,2222")
    assert "0.3333333333333333" in csv
