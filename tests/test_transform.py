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

import pandas as pd
import pytest

from imageclf.datasets import SPLITS, load_split
from imageclf.files import read_json
from project import Project
from support import ROOT, changed, photograph, save_photographs

SHARED = (ROOT / "../shared/data").resolve()
TRANSFORM = [sys.executable, str(ROOT / "stages/transform.py")]
needs_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}
UNREADABLE = {
    "broken.png": "not an image",
    "decompression_bomb.gif": "more than 89,478,485 pixels",
    "gitlfs_pointer_cloudy1.jpg": "a Git LFS pointer",
    "gitlfs_pointer_cloudy100.jpg": "a Git LFS pointer",
    "l2rgb_read.bmp": "more than 89,478,485 pixels",
    "truncated_image.png": "cut short",
    "truncated_jpeg.jpg": "cut short",
    "ultrahdr.jpg": "cut short",
    "unknown_compression_method.png": "not an image",
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


@needs_shared_data
def test_bad_inputs_among_flowers_are_named_and_left_out(tmp_path: Path) -> None:
    shutil.copytree(SHARED / "flowers", tmp_path / "photos")
    classes = sorted(path.name for path in (tmp_path / "photos").iterdir())
    for number, path in enumerate(sorted((SHARED / "bad_inputs").glob("*/*"))):
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
    # One scene in eighteen orientations is one image.
    scenes = manifest[manifest["name"].str.contains("/Landscape_")]
    assert scenes["same_as"].nunique() == scenes["split"].nunique() == 1


def test_the_report_needs_nothing_beside_it(tmp_path: Path) -> None:
    photographs(tmp_path)
    fetched(tmp_path)
    assert run(tmp_path, "transform").returncode == 0
    page = (tmp_path / "reports/data.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    sources = [source for source in sources if not source.startswith("#")]
    assert len(sources) == 16
    assert all(source.startswith("data:image;base64,") for source in sources)
    assert "http" not in page
    assert (tmp_path / "reports/data.html").read_bytes() == run_again(tmp_path)


def run_again(folder: Path) -> bytes:
    run(folder, "transform")
    return (folder / "reports/data.html").read_bytes()


def test_a_leak_that_was_planted_is_found_shown_and_stops_the_stage(tmp_path: Path) -> None:
    photographs(tmp_path, ("train/", "val/"))
    for number in range(10):
        for kind, seed in (("cat", 500), ("dog", 600)):
            path = tmp_path / f"photos/test/{kind}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(seed + number).save(path)
    photograph(503).resize((48, 36)).save(tmp_path / "photos/train/dog/leak.jpg", quality=60)
    fetched(tmp_path)
    done = run(tmp_path, "transform")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 1 image of test (5.0%) also stands in train, more than data.max_leak_fraction "
        "(1.0%): see reports/data.html\n"
    )
    assert not (tmp_path / "data/prepared").exists()
    leak = read_json(tmp_path / "reports/data.json")["leaks"][1]
    leaked = leak.pop("examples")
    assert leak == {
        "splits": ["train", "test"],
        "images": 1,
        "fraction": 0.05,
        "identical": 0,
        "with_another_label": 1,
    }
    assert [example["name_test"] for example in leaked] == ["test/cat/3.png"]
    page = (tmp_path / "reports/data.html").read_text()
    assert "(5.0%) also stands in train, more than data.max_leak_fraction" in page
    pair = ["train/dog/leak.jpg", "test/cat/3.png"]
    assert pictures_after(page, "The same image in two splits") == pair
    assert pictures_after(page, "The same image in two classes") == pair

    fetched(tmp_path, data__max_leak_fraction=0.05)
    done = run(tmp_path, "transform")
    assert done.returncode == 0
    assert "  1 image of test (5.0%) also stands in train (1 with another label)\n" in done.stdout
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
        "{} holds no images (.jpeg, .jpg, .png, .gif, .webp, .avif, .jp2, .bmp, .tif, .tiff, "
        ".pbm, .pgm, .ppm)",
    ),
    "a class in test alone": (
        lambda path: save_photographs(path, "train/a/1.png", "train/b/2.png", "test/c/3.png"),
        "{}: the class c stands in test and not in train: what is never trained on cannot be "
        "recognised; add it to train or remove it",
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
        "{} is refused: its 204 bytes would unpack to more than 1.1 GB, as only a bomb's do",
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


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path: Path) -> None:
    photographs(tmp_path)
    fetched(tmp_path, transform__image_size=200)
    disk = tmp_path / "data/small"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=2m tmpfs {shlex.quote(str(disk))}"
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*private, mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    script = (
        f"{mount} && mkdir {disk}/data && cp -r {tmp_path}/data/raw {disk}/data/ && cd {disk} && "
        f"{shlex.join(TRANSFORM)} --params ../../params.yaml; code=$?; find . -type f; exit $code"
    )
    done = subprocess.run(
        [*private, script], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: the packed images need 4.8 MB, but .* has 1\.\d MB free: make room or lower "
        r"transform.image_size\n",
        done.stderr,
    )
    assert sorted(done.stdout.split()) == ["./data/raw/images.tar", "./data/raw/source.json"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_transform_that_is_killed_leaves_nothing_half_and_no_process(
    tmp_path: Path, how: signal.Signals
) -> None:
    for seed in range(1200):
        path = tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(seed, 400, 300).save(path)
    fetched(tmp_path, transform__image_size=224, model__name="resnet18")
    process = subprocess.Popen(
        TRANSFORM,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    blocks = tmp_path / "data/.prepared.tmp/blocks"
    deadline = time.monotonic() + 60
    while not (blocks.exists() and any(blocks.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.kill(process.pid, how)
    assert process.wait() != 0
    assert not (tmp_path / "data/prepared").exists()
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(process.pid)
    if how == signal.SIGINT:
        assert not blocks.exists()
    assert run(tmp_path, "transform").returncode == 0
    assert [path.name for path in sorted((tmp_path / "data").iterdir())] == ["prepared", "raw"]


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
    assert project.repro("transform") == ["fetch", "transform"]
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
