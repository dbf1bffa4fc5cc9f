"""The fetch and transform stages on photographs, as DVC runs them: processes of their own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.images import photograph, save_photographs
from helpers.params import ROOT, changed
from helpers.project import Project
from helpers.real_data import REAL_DATA, needs
from imageclf.data.prepared import SPLITS, load_split, split_digest
from imageclf.files import read_json, sha256_file

TRANSFORM = [sys.executable, str(ROOT / "stages/transform.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}
UNREADABLE = {
    "broken.png": "damaged, or a kind of PNG",
    "decompression_bomb.gif": "more than 89,478,485 pixels",
    "gitlfs_pointer_cloudy1.jpg": "a Git LFS pointer",
    "gitlfs_pointer_cloudy100.jpg": "a Git LFS pointer",
    "l2rgb_read.bmp": "more than 89,478,485 pixels",
    "truncated_image.png": "cut short",
    "truncated_jpeg.jpg": "cut short",
    "ultrahdr.jpg": "cut short",
    "unknown_compression_method.png": "damaged, or a kind of PNG",
}


def run(folder: Path, stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / f"stages/{stage}.py")],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def fetched(folder: Path, **changes: object) -> None:
    """Fetch the photographs below ``folder/photos``."""
    settings = {"data__name": "image_folder", "data__source": "photos"}
    settings |= {"transform__image_size": 32}
    # JSON is YAML too.
    (folder / "params.yaml").write_text(json.dumps(changed(**settings | changes)))
    done = run(folder, "fetch")
    assert (done.returncode, done.stderr) == (0, "")


def photographs(folder: Path, splits: tuple[str, ...] = ("",), count: int = 20) -> None:
    names = [f"{kind}/{i:02}.png" for kind in ("cat", "dog") for i in range(count)]
    save_photographs(folder / "photos", *(f"{split}{name}" for split in splits for name in names))


def pictures_after(page: str, heading: str) -> list[str]:
    """The names of the pictures in a section of the report."""
    section = page.split(f">{heading}</h2>")[1].split("<h2", maxsplit=1)[0]
    return re.findall('alt="([^"]*)"', section)


@needs("bad_inputs", "flowers")
def test_bad_inputs_among_flowers_are_named_and_left_out(tmp_path: Path) -> None:
    shutil.copytree(REAL_DATA / "flowers", tmp_path / "photos")
    classes = sorted(path.name for path in (tmp_path / "photos").iterdir())
    for number, path in enumerate(sorted((REAL_DATA / "bad_inputs").glob("*/*"))):
        shutil.copy(path, tmp_path / "photos" / classes[number % 5] / path.name)
    fetched(tmp_path)
    done = run(tmp_path, "transform")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  9 unreadable files, left out\n" in done.stdout
    assert done.stdout.endswith("audit: reports/data.html\n")
    found = read_json(tmp_path / "reports/data.json")
    reasons = {file["name"].split("/")[1]: file["reason"] for file in found["unreadable"]["files"]}
    assert set(reasons) == set(UNREADABLE)
    page = (tmp_path / "reports/data.html").read_text()
    for name, reason in UNREADABLE.items():
        assert reasons[name].startswith(reason)
        assert re.search(rf"<td>\w+/{name}</td><td>{re.escape(reason)}", page)
    assert found["converted"]["turned upright"] == 15
    assert not any(leak["images"] for leak in found["leaks"])
    manifest = pd.read_parquet(tmp_path / "data/prepared/manifest.parquet")
    packed = sum(len(load_split(tmp_path / "data/prepared", split)) for split in SPLITS)
    assert (len(manifest), packed) == (237, 228)
    digests = {split: split_digest(tmp_path / "data/prepared", split) for split in SPLITS}
    assert read_json(tmp_path / "data/prepared/digests.json") == digests
    # One scene in eighteen orientations is one image.
    scenes = manifest[manifest["name"].str.contains("/Landscape_")]
    assert scenes["same_as"].nunique() == scenes["split"].nunique() == 1


def test_fetch_tells_the_classes_and_splits_that_it_understood(tmp_path: Path) -> None:
    photographs(tmp_path, ("training_set/", "test_set/"), 4)
    (tmp_path / "photos/training_set/cat/a.heic").write_bytes(b"anything")
    for name in ("labels.csv", "test_set/b.csv", "notes"):
        (tmp_path / "photos" / name).write_text("1,cat")
    settings = {"data__name": "image_folder", "data__source": "photos"}
    (tmp_path / "params.yaml").write_text(json.dumps(changed(**settings)))
    done = run(tmp_path, "fetch")
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("fetched 17 images in 2 classes, ")
    assert [line.rstrip() for line in lines] == [
        "  class  train  test",
        "  cat        5     4",
        "  dog        4     4",
        "  all 2      9     8",
        "  test: test_set/* (* at its last place is the class)",
        "  train: training_set/* (* at its last place is the class)",
        "  of a format that is not supported, counted by data.max_bad_fraction: 1 .heic",
        "  left out, not an image by its name: 2 .csv, 1 without a suffix; data/raw/source.json "
        "names the first",
    ]
    done = run(tmp_path, "transform")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  1 unreadable file, left out\n" in done.stdout


def test_the_report_needs_nothing_beside_it(tmp_path: Path) -> None:
    photographs(tmp_path)
    fetched(tmp_path)
    assert run(tmp_path, "transform").returncode == 0
    page = (tmp_path / "reports/data.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    sources = [source for source in sources if not source.startswith("#")]
    assert len(sources) == 16
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in page
    assert (tmp_path / "reports/data.html").read_bytes() == run_again(tmp_path)


def run_again(folder: Path) -> bytes:
    run(folder, "transform")
    return (folder / "reports/data.html").read_bytes()


def test_leaks_that_were_planted_are_shown_and_only_the_equal_one_stops(tmp_path: Path) -> None:
    photographs(tmp_path, ("train/", "val/"))
    for number in range(10):
        for kind, seed in (("cat", 500), ("dog", 600)):
            path = tmp_path / f"photos/test/{kind}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(seed + number).save(path)
    photograph(503).resize((72, 54)).save(tmp_path / "photos/train/dog/near.jpg", quality=85)
    photograph(604).save(tmp_path / "photos/train/dog/equal.png")
    fetched(tmp_path)
    done = run(tmp_path, "transform")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 1 image of test (5.0%) is equal to one of train, more than data.max_leak_fraction "
        "(1.0%): see reports/data.html\n"
    )
    assert not (tmp_path / "data/prepared").exists()
    leak = read_json(tmp_path / "reports/data.json")["leaks"][1]
    leaked = leak.pop("examples")
    assert leak == {
        "splits": ["train", "test"],
        "images": 2,
        "fraction": 0.1,
        "identical": 1,
        "with_another_label": 1,
    }
    assert [example["name_test"] for example in leaked] == ["test/cat/3.png", "test/dog/4.png"]
    page = (tmp_path / "reports/data.html").read_text()
    assert "(5.0%) is equal to one of train, more than data.max_leak_fraction" in page
    near = ["train/dog/near.jpg", "test/cat/3.png"]
    both = [*near, "train/dog/equal.png", "test/dog/4.png"]
    assert pictures_after(page, "Equal or nearly equal images in two splits") == both
    assert pictures_after(page, "Equal or nearly equal images in two classes") == near

    (tmp_path / "photos/train/dog/equal.png").unlink()
    fetched(tmp_path, data__max_leak_fraction=0.0)
    done = run(tmp_path, "transform")
    assert done.returncode == 0
    assert (
        "  1 image of test (5.0%) also stands in train: 0 equal, 1 nearly equal (1 with another "
        "label)\n"
    ) in done.stdout
    assert len(load_split(tmp_path / "data/prepared", "test")) == 20


def test_too_many_unreadable_files_stop_the_stage_after_the_report(tmp_path: Path) -> None:
    photographs(tmp_path)
    for number in range(15):
        (tmp_path / f"photos/cat/{number:02}.png").write_bytes(b"<b>404</b>")
    fetched(tmp_path)
    (tmp_path / "data/prepared").mkdir()
    (tmp_path / "data/prepared/kept").touch()
    done = run(tmp_path, "transform")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 15 unreadable files (37.5%), more than data.max_bad_fraction (10.0%), "
        "such as cat/00.png (not an image, or of a format that is not supported): see "
        "reports/data.html\n"
    )
    assert [path.name for path in (tmp_path / "data/prepared").iterdir()] == ["kept"]
    assert "cat/14.png" in (tmp_path / "reports/data.html").read_text()


def a_zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def a_tar(path: Path, name: str) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))


def a_bomb(path: Path) -> None:
    """A zip whose directory says that a few bytes become 3 GB."""
    a_zip(path, "a/1.png", "b/2.png")
    whole = bytearray(path.read_bytes())
    place = whole.index(b"PK\x01\x02") + 24
    whole[place : place + 4] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(whole)


BAD_SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class without images": (
        lambda path: (save_photographs(path, "a/1.png", "b/2.png"), (path / "c d").mkdir()),
        "{}: the class folder c d holds no image: fill it or remove it",
    ),
    "one class": (
        lambda path: save_photographs(path, "猫/1.png", "猫/2.png"),
        "{}: there is one class, 猫: a classifier needs two or more",
    ),
    "no images": (
        lambda path: (path.mkdir(), (path / "notes.txt").touch()),
        "{} holds no images of a supported format (JPEG, PNG, GIF, WEBP, AVIF, JPEG2000, BMP, "
        "TIFF, PPM)",
    ),
    "a class in test alone": (
        lambda path: save_photographs(path, "train/a/1.png", "train/b/2.png", "test/c/3.png"),
        "{}: the class c is in test but not in train: a network cannot recognise it; add it to "
        "train or remove it",
    ),
    "a loop of links": (
        lambda path: (
            save_photographs(path, "a/1.png", "b/2.png"),
            (path / "a/up").symlink_to(".."),
        ),
        "{}/a/up is a link to a folder that holds it: remove it",
    ),
    "a zip that leads out": (
        lambda path: a_zip(path, "a/1.png", "b/../../../evil.png"),
        "{} is refused: the path b/../../../evil.png could lead out of it",
    ),
    "a tar with an absolute path": (
        lambda path: a_tar(path, "/tmp/imageclf evil.png"),
        "{} is refused: the path /tmp/imageclf evil.png could lead out of it",
    ),
    "a bomb": (
        a_bomb,
        "{} is refused: its 204 bytes would unpack to more than 1.1 GB: it is an archive bomb",
    ),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_bad_source_is_one_line_and_leaves_what_there_was(tmp_path: Path, kind: str) -> None:
    make, message = BAD_SOURCES[kind]
    project = tmp_path / "above/my project"
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/kept").touch()
    source = tmp_path / "above/my source"
    make(source)
    settings = {"data__name": "image_folder", "data__source": "../my source"}
    (project / "params.yaml").write_text(json.dumps(changed(**settings)))
    before = sorted(tmp_path.rglob("*"))
    done = run(project, "fetch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {message.format('../my source')}\n"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, project / ".downloads"])
    assert not Path("/tmp/imageclf evil.png").exists()


def test_names_in_chinese_and_with_spaces_go_all_the_way(tmp_path: Path) -> None:
    kinds = ("橘 猫", "Hund & Katze")
    names = [f"{kind}/照片 {i}.png" for kind in kinds for i in range(10)]
    save_photographs(tmp_path / "photos", *names)
    fetched(tmp_path)
    done = run(tmp_path, "transform")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_json(tmp_path / "data/prepared/classes.json") == sorted(kinds)
    manifest = pd.read_parquet(tmp_path / "data/prepared/manifest.parquet")
    assert sorted(manifest["name"]) == sorted(names)
    page = (tmp_path / "reports/data.html").read_text(encoding="utf-8")
    assert "<h3>橘 猫</h3>" in page
    assert "<h3>Hund &amp; Katze</h3>" in page


def test_names_and_notes_cannot_change_the_page(tmp_path: Path) -> None:
    photographs(tmp_path)
    save_photographs(tmp_path / "photos/cat", "<script>alert(1)</script>&.png".replace("/", "_"))
    (tmp_path / "photos/cat/<b>.png").write_bytes(b"x")
    fetched(tmp_path)
    assert run(tmp_path, "transform").returncode == 0
    page = (tmp_path / "reports/data.html").read_text()
    assert "<script>" not in page
    assert "cat/&lt;b&gt;.png" in page


def on_a_disk_of(megabytes: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the stage where beside the raw data no more fits; the files there are printed last."""
    disk = folder / "data/small"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {shlex.quote(str(disk))}"
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*private, mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    raw = f"{disk}/data/raw"
    script = (
        f"{mount} && mkdir -p {raw} && ln -s {folder}/data/raw/images.tar {raw} && "
        f"cp {folder}/data/raw/source.json {raw} && cd {disk} && "
        f"{shlex.join(TRANSFORM)} --params ../../params.yaml; code=$?; "
        "find . -type f -o -type l; exit $code"
    )
    return subprocess.run(
        [*private, script], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path: Path) -> None:
    photographs(tmp_path)
    fetched(tmp_path, transform__image_size=200)
    done = on_a_disk_of(2, tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: preparing the images needs 9.6 MB, but .* has 2\.\d MB free: "
        r"make room or lower transform.image_size\n",
        done.stderr,
    )
    assert sorted(done.stdout.split()) == ["./data/raw/images.tar", "./data/raw/source.json"]


def test_a_disk_that_runs_full_stops_the_stage_in_one_line(tmp_path: Path) -> None:
    """Noise as JPEG takes more than the estimate, for the blocks and once more for the splits."""
    for number in range(60):
        path = tmp_path / f"photos/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (160, 160, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    fetched(
        tmp_path,
        transform__image_size=160,
        transform__packed_limit_gb=0.001,
        transform__fit="stretch",
    )
    done = on_a_disk_of(5, tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        "error: the disk of data is full: make room and start again, it will carry on\n",
        done.stderr,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "limit"), [(signal.SIGINT, 8.0), (signal.SIGKILL, 8.0), (signal.SIGKILL, 0.001)]
)
def test_a_transform_that_is_killed_leaves_no_process_and_carries_on(
    tmp_path: Path, how: signal.Signals, limit: float
) -> None:
    for seed in range(2000):
        path = tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(seed).save(path)
    fetched(tmp_path, transform__image_size=64, transform__packed_limit_gb=limit)
    done = run(tmp_path, "transform")
    assert (done.returncode, "carrying on" in done.stdout) == (0, False)
    expected = digests(tmp_path)
    shutil.rmtree(tmp_path / "data/prepared")
    process = subprocess.Popen(
        TRANSFORM,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    blocks = tmp_path / "data/.blocks"
    deadline = time.monotonic() + 60
    while not list(blocks.glob("*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.kill(process.pid, how)
    assert process.wait() != 0
    assert not (tmp_path / "data/prepared").exists()
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(process.pid)
    done = run(tmp_path, "transform")
    assert done.returncode == 0
    carried = re.match(r"carrying on: ([\d,]+) of 2,000 files are done\n", done.stdout)
    assert carried
    assert 256 <= int(carried[1].replace(",", "")) < 2000
    assert digests(tmp_path) == expected
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["prepared", "raw"]


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file that the stage wrote."""
    paths = [path for path in (folder / "data/prepared").rglob("*") if path.is_file()]
    paths += [folder / f"reports/data.{kind}" for kind in ("json", "html")]
    return {str(path.relative_to(folder)): sha256_file(path) for path in paths}


def processes_of(session: int) -> list[str]:
    """The processes of a session that still run."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    return [line for line in found.stdout.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.slow
def test_a_folder_that_changed_is_read_again_when_dvc_is_told(tmp_path: Path) -> None:
    project = Project(tmp_path)
    photographs(tmp_path)
    (tmp_path / ".git/info/exclude").write_text("/photos\n")
    for path, value in {"data.name": "image_folder", "data.source": "photos"}.items():
        project.set(path, value)
    project.set("transform.image_size", "32")
    assert project.repro("transform") == ["fetch", "weights", "transform"]
    assert project.repro("transform") == []
    assert project.repro("--force", "fetch") == ["fetch"]
    assert project.repro("transform") == []
    photograph(999).save(tmp_path / "photos/cat/new.png")
    assert project.repro("--force", "fetch") == ["fetch"]
    assert project.repro("transform") == ["transform"]
    assert sum(read_json(tmp_path / "reports/data.json")["images"].values()) == 41
    # Nothing of the folder is needed where the cache knows the images.
    shutil.rmtree(tmp_path / "photos")
    shutil.rmtree(tmp_path / "data/raw")
    assert project.repro("transform") == []
