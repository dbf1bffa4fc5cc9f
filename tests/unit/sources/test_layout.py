import pytest

from imageclf.data.class_folders import arrange
from imageclf.files import UserError
from imageclf.sources.layout import (
    check_all_are_there,
    chosen_layout,
    is_class_folder,
    raw_name,
    recognised,
    wrapper,
)

COMMON_NAMES = [
    ("training_set", "validation_set", "test_set"),
    ("seg_train", "seg_val", "seg_test"),
    ("train_images", "valid_images", "test_images"),
    ("Training", "Validation", "Testing"),
    ("TrainImages", "ValImages", "TestImages"),
    ("trainset", "valset", "testset"),
    ("my-pets-train", "my-pets-dev", "my-pets-test"),
    ("train", "valid", "test1"),
]


def below(*folders: str) -> list[str]:
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(2)]


def understood(names: list[str], **chosen: str | list[str]) -> list[tuple[str, str]]:
    """The split and class of every image, as the transform stage will see them."""
    layout = chosen_layout(chosen) or recognised(names)
    new = [raw_name(name, layout) for name in names]
    assert len(set(new)) == len(names)
    places = {place.name: place for place in arrange(name for name in new if name)}
    return sorted({(places[name].split, places[name].class_name) for name in new if name})


@pytest.mark.parametrize("folders", COMMON_NAMES, ids=" ".join)
@pytest.mark.parametrize("used", [("train", "test"), ("train", "val", "test")], ids=len)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("classes_above", [False, True])
def test_split_folders_of_common_names_are_splits(
    folders: tuple[str, ...], used: tuple[str, ...], repeated: bool, classes_above: bool
) -> None:
    chosen = [folders[("train", "val", "test").index(split)] for split in used]
    if classes_above:
        names = below(*(f"{name}/{folder}" for name in ("cat", "dog") for folder in chosen))
    else:
        inner = [f"{folder}/{folder}" if repeated else folder for folder in chosen]
        names = below(*(f"{folder}/{name}" for folder in inner for name in ("cat", "dog")))
    assert understood(names) == sorted((split, name) for split in used for name in ("cat", "dog"))


@pytest.mark.parametrize(
    "folders",
    [
        ("cat", "dog"),
        ("train/cat", "train/dog", "test/cat"),
        ("Training/cat", "VALID/cat", "testing/cat"),
        ("cat", "dog", "test"),
        ("cat/a/b", "dog"),
        ("cat/2020", "dog/2021"),
        ("bus", "train_station", "airport"),
    ],
)
def test_the_names_of_usual_layouts_stay(folders: tuple[str, ...]) -> None:
    names = below(*folders)
    layout = recognised(names)
    assert [raw_name(name, layout) for name in names] == names


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "docs/cat"), "beside train there is docs, which names no split"),
        (("bus", "cat", "train"), r"beside train there is bus.*data.splits: {train: .}"),
        (("train/a", "val/a", "Valid/a"), r"Valid, train, val name the same split.*val: \[Valid, "),
        (("train_1/a", "train_2/a", "test_1/a"), r"same split.*train: \[train_1, train_2\]"),
        (("train_station", "test_tube"), "may be splits or classes"),
        (("learn/cat", "learn/dog", "exam/cat", "exam/dog"), r"{train: .} for exam, learn, or"),
        (("animals/cat", "animals/dog", "vehicles/car"), r'to {train: "\*/\*"} for car, cat, dog'),
        (
            ("train/animals/cat", "train/animals/dog", "train/vehicles/car", "test/animals/cat"),
            r'to {test: "test/\*/\*", train: "train/\*/\*"} for car',
        ),
        (
            ("cat/train", "cat/test", "dog"),
            "cat holds folders of splits .test, train., and not eve",
        ),
    ],
)
def test_folders_that_may_mean_two_things_are_refused_with_the_way_out(
    folders: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        recognised(below(*folders))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "splits", "expected"),
    [
        (("bus", "train"), {"train": "."}, [("train", "bus"), ("train", "train")]),
        (
            ("learn/train", "learn/dog", "exam/train", "rest/dog"),
            {"train": "learn", "test": "exam/"},
            [("test", "train"), ("train", "dog"), ("train", "train")],
        ),
        (
            ("animals/cat", "vehicles/car"),
            {"train": ["animals", "vehicles"]},
            [("train", "car"), ("train", "cat")],
        ),
        (("a/cat", "b/cat", "b/dog"), {"train": "*/*"}, [("train", "cat"), ("train", "dog")]),
        (
            ("cat/learn", "dog/learn", "cat/exam"),
            {"train": "*/learn", "test": "*/exam"},
            [("test", "cat"), ("train", "cat"), ("train", "dog")],
        ),
        (
            ("cat", "dog", "x/cat"),
            {"train": ".", "test": "x"},
            [("test", "cat"), ("train", "cat"), ("train", "dog")],
        ),
    ],
)
def test_params_overrule(
    folders: tuple[str, ...],
    splits: dict[str, str | list[str]],
    expected: list[tuple[str, str]],
) -> None:
    names = [name for name in below(*folders) if not name.startswith("rest")]
    assert understood(names, **splits) == expected


def test_a_chosen_folder_without_images_is_named() -> None:
    with pytest.raises(UserError, match="test: no image lies in a folder exams/.*folders exam, le"):
        check_all_are_there(
            below("learn/a", "exam/a"), chosen_layout({"train": "learn", "test": "exams"})
        )


def test_a_class_folder_is_known_without_images() -> None:
    layout = {"train": ["a/*"], "test": ["b/*"]}
    folders = ("a", "a/cat", "a/cat/old", "c/cat", "b/cat")
    assert [is_class_folder(name, layout) for name in folders] == [False, True, False, False, True]


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
        (["a/mine/rose/1.jpg", "a/mine/tulip/2.jpg"], [], "a/"),
    ],
)
def test_folders_around_all_the_rest_are_no_classes(
    images: list[str], folders: list[str], expected: str
) -> None:
    assert wrapper(images, folders, {"train": ["mine/*"]}) == expected
