import pytest

from imageclf.data.class_folders import Place, arrange, class_names
from imageclf.files import UserError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.jpg", "dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (["cat/a/b/1.jpg", "dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (
            ["train/cat/1.jpg", "test/dog/2.jpg", "train/dog/x/3.jpg"],
            [("test", "dog"), ("train", "cat"), ("train", "dog")],
        ),
        (
            ["Training/cat/1.jpg", "VALID/cat/2.jpg", "testing/cat/3.jpg"],
            [("train", "cat"), ("val", "cat"), ("test", "cat")],
        ),
        (["train/cat/1.jpg", "eval/cat/2.jpg"], [("val", "cat"), ("train", "cat")]),
        (["测试 集/1.jpg", "猫/2.jpg"], [("", "测试 集"), ("", "猫")]),
        (["cat/1.jpg", "0.jpg", "test/2.jpg"], [("", "cat"), ("", "test")]),
        (["train/0.jpg", "train/cat/1.jpg"], [("train", "cat")]),
    ],
)
def test_folders_tell_class_and_split(names: list[str], expected: list[tuple[str, str]]) -> None:
    places = arrange(names)
    assert [(place.split, place.class_name) for place in places] == expected
    assert [place.name for place in places] == sorted(place.name for place in places)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val/a/1.jpg", "val/b/2.jpg"], "no folder train beside val"),
        (["train/a/1.jpg", "train/b/2.jpg", "test/c/3.jpg"], "class c is in test but not in"),
        (["cat/1.jpg", "cat/2.jpg"], "one class, cat: a classifier needs two"),
        (["1.jpg", "2.jpg"], "no image lies in a class folder"),
        (["train/1.jpg", "test/2.jpg"], "no image lies in a class folder"),
    ],
)
def test_folders_that_make_no_classes_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        class_names(arrange(names))
    assert "\n" not in str(caught.value)


def test_the_train_split_owns_the_classes() -> None:
    places = [Place("", "train", "b"), Place("", "test", "a"), Place("", "train", "a")]
    assert class_names(places) == ["a", "b"]
