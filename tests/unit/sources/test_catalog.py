import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.loopback import Cut, FileServer, Status, running
from helpers.real_data import REAL_DATA, needs
from imageclf.files import UserError
from imageclf.preparation.idx import read_idx
from imageclf.sources import catalog as sources
from imageclf.sources import download
from imageclf.sources.catalog import DataSet, DebianPackage, RawFile, fetch

CONTENT = {"train-images": bytes(range(256)) * 400, "train-labels": b"\x00\x01\x02" * 1000}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("IMAGECLF_MIRROR", raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)


@pytest.fixture
def server():
    with running(FileServer()) as server:
        yield server


@pytest.fixture
def console():
    return Console(file=io.StringIO(), soft_wrap=True)


@pytest.fixture
def publish(monkeypatch):
    """Make known a small data set ``tiny`` with the given addresses."""

    def publish(*urls, debian=None):
        files = tuple(
            RawFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in CONTENT.items()
        )
        tiny = DataSet("Tiny", "https://example.org", "MIT", files, urls, debian)
        monkeypatch.setitem(sources.DATA_SETS, "tiny", tiny)

    return publish


def packed(prefix="", **changes):
    """The files of ``tiny`` gzipped, by path; ``changes`` replaces the bytes of some."""
    content = CONTENT | {name.replace("_", "-"): value for name, value in changes.items()}
    return {f"{prefix}{name}.gz": gzip.compress(value) for name, value in content.items()}


def save(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def raw_files():
    return {path.name: path.read_bytes() for path in Path("data/raw").iterdir()}


def assert_right_and_tidy():
    found = raw_files()
    source = json.loads(found.pop("source.json"))
    assert found == CONTENT
    assert {name: entry["bytes"] for name, entry in source["files"].items()} == {
        name: len(content) for name, content in CONTENT.items()
    }
    assert [path.name for path in Path("data").iterdir()] == ["raw"]
    assert list(Path(".downloads").iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [packed("tiny/"), packed(), CONTENT, {f"tiny/{name}": CONTENT[name] for name in CONTENT}],
    ids=["gzipped in a folder of its name", "gzipped", "plain", "plain in a folder of its name"],
)
@pytest.mark.parametrize("kind", ["folder", "URL"])
def test_a_mirror_may_hold_the_files_in_four_ways(
    publish, server, console, monkeypatch, tmp_path, files, kind
):
    publish()
    save(tmp_path / "mirror", files)
    server.files = {f"/{name}": content for name, content in files.items()}
    mirror = str(tmp_path / "mirror") if kind == "folder" else f"{server.url}/"
    monkeypatch.setenv("IMAGECLF_MIRROR", mirror)
    fetch("tiny", Path("data/raw"), console)
    assert_right_and_tidy()
    assert f"trying the mirror {mirror.rstrip('/')}\n" in console.file.getvalue()


def test_the_raw_folder_is_the_same_whichever_source_gave_it(
    publish, server, console, monkeypatch, tmp_path
):
    publish(server.url)
    server.files = {f"/{name}": content for name, content in packed().items()}
    fetch("tiny", Path("data/raw"), console)
    from_web = raw_files()
    assert len(server.asked) == 2

    save(tmp_path / "mirror", CONTENT)
    monkeypatch.setenv("IMAGECLF_MIRROR", str(tmp_path / "mirror"))
    fetch("tiny", Path("data/raw"), console)
    assert raw_files() == from_web
    assert len(server.asked) == 2


def test_sources_are_tried_nearest_first(publish, server, console, monkeypatch, tmp_path):
    publish(
        f"{server.url}/first",
        f"{server.url}/second",
        debian=DebianPackage("dataset-tiny", tmp_path / "installed"),
    )
    monkeypatch.setenv("IMAGECLF_MIRROR", "http://user:secret@127.0.0.1:9/mirror")
    server.files = {f"/second/{name}": content for name, content in packed().items()}
    fetch("tiny", Path("data/raw"), console)
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "trying the mirror http://127.0.0.1:9/mirror",
        "  127.0.0.1: connection refused",
        f"trying the installed {tmp_path}/installed",
        "  there is no train-images.gz",
        f"trying {server.url}/first",
        "  there is no train-images.gz: HTTP 404 Not Found",
        f"trying {server.url}/second",
        "  train-images: 102.4 kB, sha256 verified",
        "  train-labels: 3.0 kB, sha256 verified",
    ]


def test_a_file_with_wrong_bytes_is_refused_and_the_next_source_tried(publish, server, console):
    publish(f"{server.url}/bad", f"{server.url}/good")
    bad = packed("/bad/", train_images=CONTENT["train-images"][::-1])
    server.files = bad | packed("/good/")
    fetch("tiny", Path("data/raw"), console)
    assert_right_and_tidy()
    assert "  train-images refused: its sha256 is " in console.file.getvalue()


def test_wrong_bytes_are_removed_if_downloaded(publish, server, console):
    publish(server.url)
    server.files = packed("/", train_labels=b"something else")
    with pytest.raises(UserError, match="train-labels refused: its sha256 is"):
        fetch("tiny", Path("data/raw"), console)
    assert [path.name[-15:] for path in Path(".downloads/tiny").iterdir()] == ["train-images.gz"]
    assert list(Path("data").iterdir()) == []


def test_wrong_bytes_are_left_alone_in_the_users_own_folder(
    publish, console, monkeypatch, tmp_path
):
    publish()
    save(tmp_path / "mirror", packed(train_images=b"something else"))
    monkeypatch.setenv("IMAGECLF_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(UserError, match="train-images refused"):
        fetch("tiny", Path("data/raw"), console)
    assert (tmp_path / "mirror/train-images.gz").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(bytes(100_000_000)), "more than 102,400 bytes"),
        (gzip.compress(CONTENT["train-images"])[:-100], "end-of-stream"),
        (gzip.compress(CONTENT["train-images"])[:-8] + bytes(8), "CRC check failed"),
        (b"\x1f\x8b" + bytes(100), "compression method"),
        (b"<html>Log in to the network of the hotel</html>", "train-images refused: its sha256"),
    ],
    ids=["bomb", "truncated", "wrong checksum", "broken", "another page"],
)
def test_what_is_no_such_file_is_refused(publish, server, console, content, reason):
    publish(server.url)
    server.files = packed("/") | {"/train-images.gz": content}
    with pytest.raises(UserError, match=reason):
        fetch("tiny", Path("data/raw"), console)
    assert list(Path(".downloads/tiny").iterdir()) == []


def test_what_one_source_lacks_the_next_one_adds(publish, server, console):
    publish(f"{server.url}/one", f"{server.url}/two")
    one, two = packed("/one/"), packed("/two/")
    server.files = {name: one[name] for name in ["/one/train-images.gz"]} | two
    fetch("tiny", Path("data/raw"), console)
    assert_right_and_tidy()
    assert server.sent["/one/train-images.gz"] == len(one["/one/train-images.gz"])
    assert server.sent["/two/train-images.gz"] == 0


def test_a_fetch_that_failed_goes_on_where_it_stopped(publish, server, console, monkeypatch):
    publish(server.url)
    server.files = packed("/")
    server.faults = [Cut(100)] + [Status(503)] * (download.ATTEMPTS - 1)
    with pytest.raises(UserError, match="HTTP 503"):
        fetch("tiny", Path("data/raw"), console)
    fetch("tiny", Path("data/raw"), console)
    assert_right_and_tidy()
    assert server.sent == {name: len(content) for name, content in server.files.items()}


def test_no_source_names_all_and_says_what_to_do(publish, server, console, monkeypatch, tmp_path):
    publish(
        "http://127.0.0.1:9/a", server.url, debian=DebianPackage("dataset-tiny", tmp_path / "no")
    )
    monkeypatch.setenv("PATH", "")
    save(Path("data/raw"), {"kept": b"from before"})
    with pytest.raises(UserError) as caught:
        fetch("tiny", Path("data/raw"), console)
    assert str(caught.value) == (
        f"no source gave Tiny: the installed {tmp_path}/no (there is no train-images.gz); "
        "http://127.0.0.1:9/a (127.0.0.1: connection refused); "
        f"{server.url} (there is no train-images.gz: HTTP 404 Not Found); "
        "Debian's package dataset-tiny (apt-get is not installed here). "
        "Set IMAGECLF_MIRROR to a folder or URL that holds train-images.gz, train-labels.gz, "
        "or install Debian's package dataset-tiny"
    )
    assert raw_files() == {"kept": b"from before"}
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


def test_a_place_that_cannot_be_written_is_named(publish, console):
    publish()
    Path("data").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot write data/\.raw\.tmp: "):
        fetch("tiny", Path("data/raw"), console)


def test_digits_are_those_of_scikit_learn(console):
    from sklearn.datasets import load_digits

    fetch("digits", Path("data/raw"), console)
    images = read_idx(Path("data/raw/images-idx3-ubyte"))
    digits = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.max() == 255
    np.testing.assert_array_equal(np.rint(images * (16 / 255)), digits.images)
    np.testing.assert_array_equal(read_idx(Path("data/raw/labels-idx1-ubyte")), digits.target)


@needs("mnist")
def test_mnist_is_recognised(console, monkeypatch):
    monkeypatch.setenv("IMAGECLF_MIRROR", str(REAL_DATA / "mnist"))
    fetch("mnist", Path("data/raw"), console)
    assert read_idx(Path("data/raw/train-images-idx3-ubyte")).shape == (60_000, 28, 28)
    labels = read_idx(Path("data/raw/t10k-labels-idx1-ubyte"))
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
