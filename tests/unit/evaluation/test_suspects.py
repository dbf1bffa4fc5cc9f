import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.images import learnable_split
from helpers.params import ROOT, make_params
from imageclf.data.prepared import SPLITS, shards_folder, split_digest
from imageclf.data.shards import write_shards
from imageclf.evaluation import suspects
from imageclf.evaluation.suspects import disputed, draw_folds, load_labelled, out_of_fold
from imageclf.evaluation.suspects_page import write_suspects
from imageclf.files import UserError
from imageclf.network.classifier import build_classifier
from imageclf.network.pretrained import Pretrained, architecture, write_pretrained
from imageclf.project.folder import FEATURES, PRETRAINED
from imageclf.training.features import write_no_features

CPU = torch.device("cpu")
NAMES = ["a", "b", "c", "d"]
COUNTS = {"train": 240, "val": 40, "test": 20}
PLANTED = range(0, 240, 13)  # images of train whose label is wrong
PREPARED = Path("data/prepared")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As for every MLP: on shared cores a second one makes it slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four classes that a network learns, with some wrong labels in train."""
    monkeypatch.chdir(tmp_path)
    PREPARED.mkdir(parents=True)
    rows = []
    for seed, (split, count) in enumerate(COUNTS.items()):
        images, labels = vars(learnable_split(count, seed)).values()
        if split == "train":
            labels[list(PLANTED)] = (labels[list(PLANTED)] + 1) % 4
        np.save(PREPARED / f"{split}.images.npy", images)
        np.save(PREPARED / f"{split}.labels.npy", labels)
        shards_folder(PREPARED, split).mkdir()
        write_shards([], shards_folder(PREPARED, split))
        rows += [(f"{split}/{i}.png", split, NAMES[label]) for i, label in enumerate(labels)]
    table = pd.DataFrame(rows, columns=["name", "split", "class"])
    table = table.assign(same_as=table["name"], note="")
    table.to_parquet(PREPARED / "manifest.parquet")
    for name, value in {
        "classes": NAMES,
        "stats": {"mean": [0.25], "std": [0.15], "fit": "fill"},
        "digests": {split: split_digest(PREPARED, split) for split in SPLITS},
    }.items():
        (PREPARED / f"{name}.json").write_text(json.dumps(value))
    for folder in (PRETRAINED, FEATURES):
        folder.mkdir(parents=True)
    write_pretrained(PRETRAINED, None, {})
    write_no_features(FEATURES)
    shutil.copy(ROOT / "dvc.yaml", ".")
    for name in ("src", "stages"):
        Path(name).symlink_to(ROOT / name)
    return PREPARED


def params(**changes: object):
    return make_params(transform__image_size=8, train__epochs=8, train__batch_size=16, **changes)


def judged(folds: int = 4, **changes: object):
    labelled = load_labelled(params(**changes), PREPARED)
    drawn = draw_folds(params(**changes), labelled, folds)
    told: list[str] = []
    seen: list[int] = []
    found = out_of_fold(params(**changes), labelled, drawn, CPU, seen.append, told.append)
    return labelled, drawn, found, told, sum(seen)


def test_an_image_is_disputed_by_the_thresholds_of_the_paper() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure = np.array([0.9, 0.2, 0.55, 0.1, 0.6, 0.35])  # of class 0
    probabilities = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    # Thresholds: 0.55 for class 0 and (0.9 + 0.4 + 0.65) / 3 = 0.65 for class 1.
    numbers, suggested = disputed(probabilities, labels)
    assert numbers.tolist() == [1, 4]
    assert suggested.tolist() == [1, 0]


def test_a_class_that_is_never_sure_disputes_at_its_own_measure() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    rows = [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.5, 0.4, 0.1]]
    numbers, suggested = disputed(np.array(rows, np.float32), labels)
    # Thresholds: 0.55, 0.45, 0.1. The last image reaches none of another class with 0.5 or 0.4.
    assert numbers.tolist() == []
    numbers, suggested = disputed(np.array([*rows[:4], [0.6, 0.3, 0.1]], np.float32), labels)
    assert (numbers.tolist(), suggested.tolist()) == ([4], [0])


def test_planted_labels_are_found_and_hardly_any_other(prepared: Path) -> None:
    labelled, drawn, probabilities, told, seen = judged()
    found = write_suspects(Path("reports"), prepared, labelled, probabilities, len(drawn))
    table = pd.read_csv("reports/suspects.csv")
    planted = {f"train/{number}.png" for number in PLANTED}
    assert len(planted & set(table["name"])) >= 16
    assert len(planted & set(table["name"])) / len(table) >= 0.9
    assert (table["label"] != table["suggested"]).all()
    right = [NAMES[int(name[6:-4]) % 4] for name in table["name"] if name in planted]
    assert right == table.loc[table["name"].isin(planted), "suggested"].tolist()
    assert (found["images"], found["suspects"], found["folds"]) == (280, len(table), 4)
    assert found["accuracy"] > 0.85
    assert sum(pair["images"] for pair in found["pairs"]) == len(table)
    assert [line.split(":")[0] for line in told] == [f"part {n}/4" for n in (1, 2, 3, 4)]
    assert seen == 8 * sum(len(fold.train) for fold in drawn)
    page = Path("reports/suspects.html").read_text()
    assert page.count('alt="train/') + page.count('alt="val/') == 3 * len(table)
    assert page.count('src="data:image/png;base64,') == 3 * len(table)
    assert "http" not in page
    assert not Path(".checkpoints/suspects").exists()


def test_a_head_learns_from_the_features_and_no_pixel_is_looked_at(prepared: Path) -> None:
    frozen = {
        "model__name": "mlp",
        "model__hidden": [64],
        "model__weights": "models/classifier",
        "model__freeze": "backbone",
        "train__learning_rate": 0.05,
    }
    model = params(**frozen).model
    backbone = build_classifier(model, {"mean": [0.2], "std": [0.1]}, (8, 8, 1), 4).network.backbone
    pretrained = Pretrained(architecture(model.model_dump()), 1, [0.2], [0.1], {"sha256": "f" * 64})
    write_pretrained(PRETRAINED, pretrained, backbone.state_dict())
    for split in ("train", "val"):
        path = prepared / f"{split}.images.npy"
        images = np.load(path)
        features = images.reshape(len(images), 64).astype(np.float32) / 255
        np.save(FEATURES / f"{split}.npy", features)
        np.save(path, np.zeros_like(images))
    labelled, _, probabilities, _, _ = judged(**frozen)
    numbers, _ = disputed(probabilities, labelled.images.labels)
    assert len(set(PLANTED) & set(numbers)) >= 16
    assert len(numbers) <= 20


def test_folds_hold_every_image_once_and_no_group_twice(prepared: Path) -> None:
    table = pd.read_parquet(prepared / "manifest.parquet")
    table["same_as"] = [f"{name.split('/')[0]}{i // 3}" for i, name in enumerate(table["name"])]
    table.to_parquet(prepared / "manifest.parquet")
    labelled = load_labelled(params(), prepared)
    assert len(labelled.images) == 280
    assert "test" not in set(labelled.rows["split"])
    folds = draw_folds(params(), labelled, 4)
    held_out = np.concatenate([fold.held_out for fold in folds])
    assert sorted(held_out) == list(range(280))
    for fold in folds:
        parts = [set(labelled.groups[part]) for part in (fold.train, fold.val, fold.held_out)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert len(fold.train) + len(fold.val) + len(fold.held_out) == 280
        assert set(labelled.images.labels[fold.val]) == {0, 1, 2, 3}


def stopped_in_fold(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stop a run in one of its folds; a list that grows with every fold that is trained."""
    predict_fold, calls = suspects.predict_fold, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return predict_fold(*arguments)

    monkeypatch.setattr(suspects, "predict_fold", stopping)
    with pytest.raises(KeyboardInterrupt):
        judged()
    return calls


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, whole, _, _ = judged()
    calls = stopped_in_fold(3, monkeypatch)
    _, drawn, resumed, _, seen = judged()
    assert len(calls) == 3 + 2
    assert (resumed == whole).all()
    assert seen == 8 * sum(len(fold.train) for fold in drawn)


def test_other_parameters_do_not_go_on_with_what_was_kept(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stopped_in_fold(2, monkeypatch)
    judged(train__learning_rate=0.002)
    assert len(calls) == 2 + 4


def test_a_class_with_fewer_images_than_folds_is_named(prepared: Path) -> None:
    labelled = load_labelled(params(), prepared)
    labelled.images.labels[labelled.images.labels == 3] = 2
    labelled.images.labels[:3] = 3
    with pytest.raises(UserError, match="class d has 3 images of different origin, too few for 4"):
        draw_folds(params(), labelled, 4)


def test_a_class_of_fewer_origins_than_folds_is_named(prepared: Path) -> None:
    labelled = load_labelled(params(), prepared)
    alike = labelled.images.labels == 1
    labelled.groups[alike] = labelled.groups[alike].min()
    with pytest.raises(UserError, match="class b has 1 images of different origin, too few for 4"):
        draw_folds(params(), labelled, 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop(columns="same_as"), "is no manifest"),
        (lambda table: table.assign(note=None), "a cell holds no text"),
        (lambda table: table.assign(name="cat"), "two images have the same name"),
        (lambda table: table[1:], r"tells of \d+ images and holds \d+"),
    ],
)
def test_a_manifest_of_something_else_is_refused_in_a_line(
    prepared: Path, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    file = prepared / "manifest.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(UserError, match=f"{reason}.*: run `dvc repro` again"):
        load_labelled(params(), prepared)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="is no manifest"):
        load_labelled(params(), prepared)
