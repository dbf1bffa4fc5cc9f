from dataclasses import replace

import pytest
import torch

from imageclf.tracking.provenance import Provenance, this_machine


def test_the_machine_is_named() -> None:
    tags = this_machine(torch.device("cpu")).tags()
    assert tags["device"] == "cpu"
    assert tags["hardware"]
    assert tags["version.torch"] == torch.__version__.partition("+")[0]


TAGS = {
    "device": "cuda:0",
    "hardware": "NVIDIA H100",
    "processes": "2",
    "git_commit": "a" * 40,
    "git_dirty": "true",
    "version.torch": "2.14.1",
    "version.python": "3.11.7",
}


def test_tags_of_earlier_versions_are_read_and_written_as_they_were() -> None:
    read = Provenance.from_tags(TAGS | {"fingerprint": "f" * 64})
    assert (read.commit, read.dirty, read.processes) == ("a" * 40, True, 2)
    assert read.versions == {"torch": "2.14.1", "python": "3.11.7"}
    assert read.tags() == TAGS
    assert Provenance.from_tags({}).tags() == {}
    assert read.machine == {tag: TAGS[tag] for tag in TAGS if tag not in {*SOURCE, "processes"}}


SOURCE = ("git_commit", "git_dirty")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("git_commit", "--output=FILE"),
        ("git_commit", "HEAD"),
        ("git_commit", "a" * 39),
        ("git_commit", "a" * 41),
        ("git_commit", "A" * 40),
        ("git_commit", "a" * 40 + "\n"),
        ("git_commit", ""),
        ("git_dirty", "True"),
        ("git_dirty", ""),
        ("processes", "-1"),
        ("processes", "9" * 5000),
        ("processes", "\u0663"),
    ],
)
def test_what_does_not_parse_is_refused_and_never_written_again(tag: str, value: str) -> None:
    read = Provenance.from_tags(TAGS | {tag: value})
    assert read.refused == {tag: value}
    assert read.tags() == {other: TAGS[other] for other in TAGS if other != tag}
    assert Provenance.from_tags(TAGS).updated(read) == replace(
        Provenance.from_tags(TAGS), refused={tag: value}
    )


def test_a_commit_of_sha256_is_one_too() -> None:
    assert Provenance.from_tags({"git_commit": "b" * 64}).commit == "b" * 64
