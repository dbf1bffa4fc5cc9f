import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from helpers.images import learnable_split
from helpers.params import ROOT, params_text
from imageclf.cli import main
from imageclf.commands.predict import FIGURE_ROWS
from imageclf.drawing.plots import image_with_probabilities
from imageclf.inference.prediction import likeliest, load_exported
from imageclf.lineage.names import MODEL_NAMES
from imageclf.params import load_params
from imageclf.tracking.journal import keep_registration
from imageclf.training.history import MEASURED

BIN = Path(sys.executable).parent
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", columns: int | None = None) -> Result:
        result = CliRunner().invoke(
            main, arguments, input=stdin, prog_name="imageclf", terminal_width=columns
        )
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


@pytest.fixture
def model(run: Run, onnx_file: Path) -> Path:
    """The default place of the exported model, with a model of 8 x 8 images and classes a to d."""
    Path("models/exported").mkdir(parents=True)
    return Path(shutil.copy(onnx_file, "models/exported"))


ANSWERED = "model: models/exported, fingerprint ffffffff"


def write_images(folder: str, count: int) -> list[str]:
    """Random images, whose paths are given in their order."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [f"{folder}/{number:03}.png" for number in range(count)]
    for seed, path in enumerate(paths):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def refused(result: Result) -> str:
    """The one line of a command that refuses."""
    assert result.exit_code == 2
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_line_per_image_with_its_likeliest_classes(run: Run, model: Path) -> None:
    paths = write_images("photos", 2)
    Path("b.png").write_bytes(Path(paths[0]).read_bytes())
    result = run("predict", "b.png", "photos")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["b.png", *paths]
    assert len({len(line) for line in lines}) == 1
    classifier = load_exported(model)
    with Image.open("b.png") as image:
        (probabilities,) = classifier.probabilities(np.asarray(image)[None, ..., None])
    expected = [f"{name} {p:>6.1%}" for name, p in likeliest(probabilities, "abcd", 3)]
    assert lines[0] == "  ".join(["b.png         ", *expected])


def test_a_line_for_every_image_whatever_its_name(run: Run, model: Path) -> None:
    (path,) = write_images("photos", 1)
    Path(path).rename("photos/two\nlines \N{CAT FACE}.png")
    result = run("predict", "photos")
    (line,) = result.stdout.splitlines()
    assert line.startswith("photos/two\\nlines \N{CAT FACE}.png  ")


HOSTILE = ["a\nerror: b", "\x1b[2Jb", "=1+1", "\u202ed"]
SHOWN = ["a\\nerror: b", "\\x1b[2Jb", "=1+1", "\\u202ed"]


@pytest.fixture
def hostile(model: Path) -> None:
    """The exported model with class names that a terminal or a spreadsheet would obey."""
    changed = onnx.load(model)
    (names,) = (each for each in changed.metadata_props if each.key == "class_names")
    names.value = json.dumps(HOSTILE)
    onnx.save(changed, model)


@pytest.mark.usefixtures("hostile")
def test_class_names_are_shown_on_one_line_and_obeyed_by_nothing(run: Run) -> None:
    write_images("photos", 3)
    Path("photos/\x1b[31m.png").write_text("no image")
    found = run("predict", "photos", "--top-k", "4")
    assert len(found.stdout.splitlines()) == 3
    assert all(name in line for line in found.stdout.splitlines() for name in SHOWN)
    assert "unreadable: photos/\\x1b[31m.png" in found.stderr
    found_too = run("predict", "photos", "--output", "p.csv", "--figure", "p.png")
    assert any(name in found_too.stdout for name in SHOWN)
    for text in (found.output, found_too.output):
        assert all(char.isprintable() or char == "\n" for char in text)
    with Path("p.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[3:-1] == [f"p_{name}" for name in HOSTILE]
    told = {name: f"'{name}" if name == "=1+1" else name for name in HOSTILE}
    assert {row[1] for row in rows} <= {*told.values()}


def test_json_lines(run: Run, model: Path) -> None:
    paths = write_images("photos", 3)
    result = run("predict", "photos", "--json", "--top-k", "4")
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["image"] for each in found] == paths
    for each in found:
        assert sorted(entry["class"] for entry in each["predictions"]) == ["a", "b", "c", "d"]
        probabilities = [entry["probability"] for entry in each["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_a_file_of_predictions_instead_of_lines(run: Run, model: Path) -> None:
    paths = write_images("photos", 3)
    Path("photos/001.png").write_bytes(b"")
    printed = run("predict", "photos", "--json").stdout
    result = run("predict", "photos", "--output", "out/p.jsonl")
    assert Path("out/p.jsonl").read_text() == printed
    classes = [json.loads(line)["predictions"][0]["class"] for line in printed.splitlines()]
    counts = ", ".join(f"{count} {name}" for name, count in Counter(classes).most_common())
    assert result.stdout == f"out/p.jsonl: 2 images: {counts}\n"
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        ANSWERED,
        f"unreadable: {paths[1]}: the file is empty",
        "error: 1 of 3 images could not be read",
    ]
    result = run("predict", "photos/000.png", "--output", "p.csv")
    assert (result.exit_code, result.stderr) == (0, f"{ANSWERED}\n")
    header = "image,class,probability,p_a,p_b,p_c,p_d,note\n"
    assert Path("p.csv").read_text().startswith(header)


@pytest.mark.parametrize("options", [["--output", "a.png/p.csv"], ["--figure", "a.png/p.png"]])
def test_a_file_that_cannot_be_written_is_named(run: Run, model: Path, options: list[str]) -> None:
    (path,) = write_images("photos", 1)
    Path("a.png").write_bytes(b"a file is no folder")
    result = run("predict", path, *options)
    assert result.exit_code == 2
    assert result.stderr == "error: a.png: File exists\n"


def test_an_image_unlike_the_training_has_a_note_and_its_negative_none(
    run: Run, model: Path
) -> None:
    Image.new("L", (8, 8), 230).save("drawing.png")
    note = "unlike anything this model was trained on"
    assert run("predict", "drawing.png").stdout.endswith(f"%  {note}\n")
    assert note not in run("predict", "drawing.png", "--invert").stdout
    assert json.loads(run("predict", "drawing.png", "--json").stdout)["note"] == note
    summary = run("predict", "drawing.png", "--output", "p.csv").stdout
    assert summary.endswith(f"\n1 is {note}\n")
    assert Path("p.csv").read_text().endswith(f",{note}\n")


def test_paths_from_standard_input(run: Run, model: Path) -> None:
    paths = write_images("my photos", 3)
    result = run("predict", "-", "--top-k", "1", stdin=f"{paths[2]}\n\nmy photos\n")
    assert result.exit_code == 0
    assert [line[: len(paths[0])] for line in result.stdout.splitlines()] == [paths[2], *paths]
    assert "no images given" in refused(run("predict", "-", stdin=""))


def test_unreadable_files_are_listed_after_everything_else(run: Run, model: Path) -> None:
    write_images("photos", 3)
    Path("photos/000.png").write_bytes(b"")
    result = run("predict", "photos", "missing.png", "--json")
    assert result.exit_code == 2
    images = [json.loads(line)["image"] for line in result.stdout.splitlines()]
    assert images == ["photos/001.png", "photos/002.png"]
    assert result.stderr.splitlines() == [
        ANSWERED,
        "unreadable: photos/000.png: the file is empty",
        "unreadable: missing.png: no such file or directory",
        "error: 2 of 4 images could not be read",
    ]


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (FIGURE_ROWS + 2, FIGURE_ROWS)])
def test_the_figure_has_a_row_per_image_up_to_a_limit(
    run: Run, model: Path, count: int, rows: int
) -> None:
    write_images("photos", count)
    result = run("predict", "photos", "--figure", "out/figure.png")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == count
    assert result.stderr == f"figure: out/figure.png\n{ANSWERED}\n"
    with Image.open("out/figure.png") as figure:
        assert figure.width == 900
        assert figure.height == pytest.approx(264 * rows, abs=2)


def test_what_the_figure_shows() -> None:
    classes = [("b", 0.75), ("$a_{", 0.2), ("c", 0.05)]
    images = [np.full((8, 8, 1), 7, np.uint8), np.full((8, 8, 3), 200, np.uint8)]
    figure = image_with_probabilities(images, ["costs $3_{", "a" * 99], [classes] * 2)
    picture, chart, colour, _ = figure.axes
    assert (picture.images[0].get_array() == 7).all()
    assert colour.images[0].get_array().shape == (8, 8, 3)
    assert picture.get_title() == "costs $3_{"
    assert colour.get_title() == "a" * 31 + "…"
    assert [label.get_text() for label in chart.get_yticklabels()] == ["b", "$a_{", "c"]
    assert [bar.get_width() for bar in chart.patches] == [0.75, 0.2, 0.05]
    assert [text.get_text() for text in chart.texts] == ["75.0%", "20.0%", "5.0%"]
    assert chart.yaxis_inverted()
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no images given: name files or folders, or - for paths on standard input"),
        (["empty"], "there are no images in empty"),
        (["a.png", "--top-k", "5"], "--top-k 5: models/exported knows 4 classes"),
        (["a.png", "--figure", "a.jpg"], "--figure a.jpg: the figure is a PNG, so name it a.png"),
        (
            ["a.png", "--output", "a.txt"],
            "a.txt: the ending tells the kind: use .csv, .parquet, .jsonl",
        ),
        (
            ["a.png", "--output", "a.csv", "--json"],
            "--json prints and --output writes a file: give one of them",
        ),
        (
            ["a.png", "--model", "other"],
            "other names no model (there is no tracking store at sqlite:///FOLDER/mlflow.db): give "
            f"{MODEL_NAMES}",
        ),
    ],
)
def test_what_predict_refuses(run: Run, model: Path, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    write_images(".", 1)
    told = refused(run("predict", *arguments))
    assert told.replace(str(Path.cwd()), "FOLDER") == message


def test_without_a_model_the_command_that_makes_it_is_named(run: Run) -> None:
    message = "models/exported/model.onnx is missing: run `dvc repro` to make it"
    assert refused(run("predict", "a.png")) == message


def test_top_k_below_one_is_a_usage_error(run: Run) -> None:
    result = run("predict", "a.png", "--top-k", "0")
    assert result.exit_code == 2
    assert "0 is not in the range x>=1" in result.stderr


@pytest.mark.slow
def test_a_registered_model_by_alias_and_by_version(project: Path, onnx_file: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    client.create_registered_model("letters")
    version = client.create_model_version("letters", str(onnx_file.parent))
    client.set_registered_model_alias("letters", "champion", version.version)
    (path,) = write_images("photos", 1)
    expected = CliRunner().invoke(main, ["predict", path, "--model", str(onnx_file)])
    for uri in ("models:/letters@champion", "models:/letters/1"):
        result = CliRunner().invoke(main, ["predict", path, "--model", uri])
        assert (result.exit_code, result.stdout) == (0, expected.stdout)
        assert result.stderr == "model: letters/1, fingerprint ffffffff\n"
    message = refused(CliRunner().invoke(main, ["predict", path, "--model", "models:/words@x"]))
    assert "words" in message
    assert "not found" in message


@pytest.mark.parametrize("command", ["server", "push", "pull", "runner"])
def test_commands_of_several_machines_begin_in_the_folder_of_the_project(
    run: Run, command: str
) -> None:
    reason = "there is no dvc.yaml here: run this in the folder of the project"
    assert refused(run(command)) == reason
    assert list(Path().iterdir()) == []
    assert run(command, "--help").exit_code == 0


def test_use_lists_the_recipes(run: Run) -> None:
    shutil.copytree(ROOT / "recipes", "recipes")
    result = run("use")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == sorted(path.stem for path in Path("recipes").iterdir())
    assert "  MNIST with the course's first trained network (part 3)" in result.stdout


def test_use_tells_what_changed_and_what_comes_next(run: Run) -> None:
    shutil.copytree(ROOT / "recipes", "recipes")
    Path("params.yaml").write_text(params_text())
    result = run("use", "mnist_part3")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "data.name        fashion_mnist -> mnist",
        "model.hidden     [256, 64] -> [128, 64]",
        "train.epochs     20 -> 5",
        "train.optimizer  adam -> sgd",
        "register.name    fashion-mnist -> mnist",
        "next: dvc repro",
    ]
    again = run("use", "mnist_part3")
    assert again.stdout.splitlines() == [
        "params.yaml already holds mnist_part3: nothing changed",
        "next: dvc repro",
    ]


def test_use_keeps_the_source_of_your_own_pictures_or_asks_for_it(run: Run) -> None:
    shutil.copytree(ROOT / "recipes", "recipes")
    Path("params.yaml").write_text(params_text())
    asked = "next: set data.source in params.yaml to your folder of pictures, then dvc repro"
    assert run("use", "my_photos").stdout.splitlines()[-1] == asked
    text = Path("params.yaml").read_text()
    for first in ("my_photos", "fashion_part4"):
        run("use", first)
        Path("params.yaml").write_text(
            Path("params.yaml").read_text().replace('source: "" ', "source: a b")
        )
        result = run("use", "my_photos")
        assert "data.source" not in result.stdout
        assert result.stdout.splitlines()[-1] == "next: dvc repro"
        assert load_params().data.source == "a b"
    assert "data.source            a b -> \n" in run("use", "fashion_part4").stdout
    assert run("use", "my_photos").exit_code == 0
    assert Path("params.yaml").read_text() == text


def test_use_refuses_in_one_line(run: Run) -> None:
    assert "run this in the folder of the project" in refused(run("use"))
    shutil.copytree(ROOT / "recipes", "recipes")
    assert refused(run("use", "digits")) == "there is no recipe digits; did you mean digits_mlp?"
    assert "params.yaml is missing" in refused(run("use", "digits_mlp"))


@pytest.fixture
def prepared(run: Run) -> None:
    """The default place of the prepared data, with 40 train images of 8 x 8 in classes a to d."""
    Path("params.yaml").write_text(params_text())
    folder = Path("data/prepared")
    folder.mkdir(parents=True)
    train = learnable_split(40, seed=0)
    np.save(folder / "train.images.npy", train.images)
    np.save(folder / "train.labels.npy", train.labels)
    (folder / "classes.json").write_text('["a", "b", "c", "d"]')


def test_show_draws_train_images_above_what_the_network_sees(run: Run, prepared: None) -> None:
    result = run("show", "--count", "3")
    assert (result.exit_code, result.stdout) == (0, "picture: show.png\n")
    plain = Path("show.png").read_bytes()
    with Image.open("show.png") as picture:
        assert picture.height == pytest.approx(3.6 * 120, abs=2)
        assert picture.width == pytest.approx(4.8 * 120, abs=2)
    run("show", "--count", "3")
    assert Path("show.png").read_bytes() == plain
    params = Path("params.yaml").read_text()
    for before, after in [("seed: 1 ", "seed: 2 "), ("  shift: 0", "  shift: 2")]:
        assert before in params
        Path("params.yaml").write_text(params.replace(before, after))
        assert run("show", "--count", "3", "--output", "out/other.png").exit_code == 0
        assert Path("out/other.png").read_bytes() != plain


def test_what_show_refuses(run: Run) -> None:
    assert refused(run("show", "--output", "a.jpg")).endswith("so name it a.png")
    assert "params.yaml is missing" in refused(run("show"))
    Path("params.yaml").write_text(params_text())
    message = refused(run("show"))
    assert message.startswith("data/prepared: the train split is unreadable")
    assert message.endswith("run `dvc repro`")
    assert not Path("show.png").exists()


FINGERPRINT = "f" * 64
FIGURES = {"accuracy": 0.5, "accuracy_low": 0.5, "majority_accuracy": 0.5, "images": 9}


def write_outs(**more: object) -> None:
    """What the stages write, as far as a summary tells it."""
    model = {"name": "mlp", "hidden": [8, 4], "head": []}
    weights = {"title": "another training"}
    values = {
        "data/raw/source.json": {"title": "Clothes", "files": {"a": {"bytes": 2_000_000}}},
        "reports/data.json": {"images": {"train": 6, "val": 2, "test": 10000}},
        "reports/metrics.json": FIGURES,
        "models/classifier/model.json": {
            "fingerprint": FINGERPRINT,
            "epoch": 2,
            "model": model,
            "weights": weights,
        },
    }
    for path, value in (values | more).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(value))
    rows = [f"{epoch},0.1,1,0.5,1,{accuracy}" for epoch, accuracy in [(1, 0.5), (2, 0.75), (3, 0)]]
    Path("reports/history.csv").write_text("\n".join([",".join(["epoch", *MEASURED]), *rows]))


def test_summary_shows_the_figures_and_where_everything_is(run: Run, model: Path) -> None:
    metrics = {
        "accuracy": 0.8757,
        "top_2_accuracy": 0.95,
        "loss": 0.4,
        "accuracy_low": 0.867,
        "majority_accuracy": 0.1,
        "images": 10000,
    }
    write_outs(**{"reports/metrics.json": metrics})
    decision = {"promoted": True, "reasons": ["there was no champion"]}
    keep_registration(FINGERPRINT, "clothes", "3", decision)
    result = run("summary")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "data         Clothes",
        "             6 train, 2 val, 10,000 test images",
        "network      mlp, hidden layers of 8 and 4, begun with another training",
        "             weights of epoch 2 of 3: val accuracy 75.0 %",
        "accuracy     87.6 % of 10,000 test images (86.7 to 88.4 % with 99 % confidence)",
        "             95.0 % among the 2 likeliest classes",
        "             10.0 % by always guessing the commonest class",
        "registered   clothes version 3, the champion: there was no champion",
        "fingerprint  ffffffffffff",
        "",
        "the report       reports/evaluation/index.html",
        "the data         reports/data.html",
        "the model        models/exported/model.onnx",
        "all runs         make ui",
        "wrong labels     imageclf suspects",
        "your own images  imageclf predict IMAGE",
    ]
    assert f"fingerprint  {'f' * 64}" in run("summary", "-v").stdout


def test_summary_tells_what_the_report_warns_of(run: Run) -> None:
    write_outs(**{"reports/evaluation/warnings.json": ["use my_photos"]})
    keep_registration("e" * 64, "clothes", "3", {"promoted": True, "reasons": []})
    told = run("summary").stdout
    assert "\nwarning      use my_photos\n" in told
    assert "registered" not in told  # that was another model


@pytest.mark.parametrize(
    ("data", "row"),
    [
        ({"train": "1", "val": "2"}, "wrong labels     7 suspects: reports/suspects.html\n"),
        ({"train": "1", "val": "3"}, "wrong labels     imageclf suspects\n"),
    ],
)
def test_summary_tells_of_suspects_in_the_same_data(
    run: Run, data: dict[str, str], row: str
) -> None:
    digests = {"train": "1", "val": "2", "test": "3"}
    suspects = {"suspects": 7, "data": data}
    write_outs(**{"reports/suspects.json": suspects, "data/prepared/digests.json": digests})
    assert row in run("summary").stdout


def test_summary_before_the_first_run(run: Run) -> None:
    message = "reports/metrics.json is missing: run `dvc repro` to make it"
    assert refused(run("summary")) == message


@pytest.mark.parametrize("command", ["predict", "use", "show", "summary"])
def test_help_has_examples(run: Run, command: str) -> None:
    overview = run("--help")
    assert overview.exit_code == 0
    assert command in overview.stdout
    assert "  imageclf predict photo.jpg               the classes of" in overview.stdout
    assert run(command, "--help").exit_code == 0


def test_the_overview_has_every_command_by_purpose_in_80_columns(run: Run) -> None:
    overview = run("--help", columns=80).stdout
    listed = [line.split()[0] for line in overview.splitlines() if line.startswith("  ")]
    assert {*main.commands} <= {*listed}
    assert [line for line in overview.splitlines() if line.endswith(":")][1:5] == [
        "Train:",
        "Use and judge a model:",
        "What a model was made from:",
        "Several people or machines:",
    ]
    assert max(map(len, overview.splitlines())) <= 80
    assert "..." not in overview.partition("Train:")[2]


def test_the_version_is_that_of_the_project(run: Run) -> None:
    assert run("--version").stdout == f"imageclf {version('imageclf')}\n"


def test_the_command_line_itself_loads_nothing_heavy() -> None:
    script = (
        "import sys, imageclf.cli\n"
        "heavy = {'torch', 'mlflow', 'onnxruntime', 'numpy', 'PIL', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_ctrl_c_stops_at_once_with_130(run: Run, model: Path) -> None:
    write_images("photos", 50)
    command = [BIN / "imageclf", "predict", *["photos"] * 400]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - start < 10
    assert errors == b""


def test_a_reader_that_leaves_early_is_no_error_message(run: Run, model: Path) -> None:
    write_images("photos", 50)
    command = [BIN / "imageclf", "predict", *["photos"] * 60]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
