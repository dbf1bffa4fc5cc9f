import pytest

from imageclf.data.class_folders import (
    Place,
    arrange,
    check_for_empty_classes,
    class_names,
    wrapper,
)
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
        (["train/cat/1.jpg", "docs/cat/2.jpg"], "beside train there is docs, which names no split"),
        (
            ["train/a/1.jpg", "val/a/2.jpg", "Valid/a/3.jpg"],
            "Valid, train, val name the same split",
        ),
        (["val/a/1.jpg", "val/b/2.jpg"], "no folder train beside val"),
        (["train/a/1.jpg", "train/b/2.jpg", "test/c/3.jpg"], "class c stands in test and not in"),
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


@pytest.mark.parametrize(
    ("images", "folders", "expected"),
    [
        (["flowers/rose/1.jpg", "flowers/tulip/2.jpg"], [], "flowers/"),
        (["a/b/rose/1.jpg", "a/b/tulip/x/2.jpg"], ["a", "a/b", "a/b/rose"], "a/b/"),
        (["data/train/rose/1.jpg", "data/train/tulip/2.jpg"], [], "data/"),
        (["train/rose/1.jpg", "train/tulip/2.jpg"], ["train"], ""),
        (["rose/1.jpg", "tulip/2.jpg"], ["rose", "tulip"], ""),
        (["rose/1.jpg", "rose/2.jpg"], [], ""),
        (["rose/red/1.jpg", "rose/white/2.jpg"], ["tulip"], ""),
        (["flowers/rose/1.jpg", "flowers/rose/2.jpg"], ["flowers/tulip"], "flowers/"),
    ],
)
def test_folders_around_all_the_rest_are_no_classes(
    images: list[str], folders: list[str], expected: str
) -> None:
    assert wrapper(images, folders) == expected


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["cat", "dog"], ["cat/1.jpg"]),
        (["train", "train/cat", "train/dog"], ["train/cat/1.jpg"]),
        (["dog", "dog/poodle", "cat"], ["cat/1.jpg"]),
    ],
)
def test_a_class_folder_without_images_is_named(folders: list[str], names: list[str]) -> None:
    with pytest.raises(UserError, match=r"class folder (train/)?dog holds no image"):
        check_for_empty_classes(folders, arrange(names))


def test_other_folders_may_be_empty() -> None:
    places = arrange(["train/cat/1.jpg", "train/dog/2.jpg"])
    check_for_empty_classes(["train", "train/cat", "train/dog", "train/dog/old", "test"], places)
