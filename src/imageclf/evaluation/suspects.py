"""Labels that may be wrong: a network that never saw the image confidently predicts another one.

The images are dealt into folds; a network trained on all folds but one predicts that one. A
threshold per class decides what is confident: confident learning, by C. Northcutt, L. Jiang and
I. Chuang (https://arxiv.org/abs/1911.00068).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from imageclf.data.prepared import Labels, Split, load_class_names
from imageclf.evaluation.metrics import predict
from imageclf.files import UserError, atomic_writer, digest_of, read_json
from imageclf.params import Params
from imageclf.preparation.splitting import Groups, origins, stratified_choice
from imageclf.training.begin import SPLITS, begin_training, load_learnt
from imageclf.training.fingerprint import fingerprint

if TYPE_CHECKING:
    import pandas as pd

FINISHED = Path(".checkpoints/suspects")
NEEDED = ["name", "split", "class", "note", "same_as"]  # columns of the manifest

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """Images whose labels are to be checked.

    Attributes:
        rows: their rows of the manifest, in the order of the images.
        images: uint8, N x H x W x C, or their features (float32, N x F) if only a head is trained;
            and their labels.
        image_shape: (H, W, C).
        groups: int64, N; images of one group show the same or have one origin.
        class_names: a label is an index into them.
        stats: of the train split, see ``prepared.stats_of``.
    """

    rows: "pd.DataFrame"
    images: Split
    image_shape: Sequence[int]
    groups: Groups
    class_names: list[str]
    stats: dict[str, list[float]]


@dataclass(frozen=True)
class Fold:
    """Indices of the images that train a network, validate it, and are predicted by it."""

    train: Labels
    val: Labels
    held_out: Labels


def load_labelled(params: Params, prepared: Path) -> Labelled:
    """The train and the val images of a prepared folder, or their features, all in memory.

    Raises:
        UserError: the folder is missing or incomplete.
    """
    import pandas as pd

    splits, shape = load_learnt(params, prepared)
    parts = splits.values()
    manifest = _read_manifest(prepared / "manifest.parquet")
    rows = pd.concat([manifest[manifest["split"] == split] for split in SPLITS], ignore_index=True)
    if (found := len(rows)) != (images := sum(map(len, parts))):
        raise UserError(
            f"{prepared} tells of {found:,} images and holds {images:,}: run `dvc repro` again"
        )
    same = pd.factorize(rows["same_as"])[0].astype(np.int64)
    return Labelled(
        rows,
        Split(
            np.concatenate([part.images[:] for part in parts]),
            np.concatenate([part.labels for part in parts]),
        ),
        shape,
        origins(rows["name"], same, params.data.group_pattern),
        load_class_names(prepared),
        read_json(prepared / "stats.json"),
    )


def _read_manifest(path: Path) -> "pd.DataFrame":
    """The ``NEEDED`` columns of the manifest; a UserError if it is missing or something else."""
    import pandas as pd
    from pyarrow import ArrowException

    try:
        manifest = pd.read_parquet(path, columns=NEEDED)
        if not all(type(cell) is str for name in NEEDED for cell in manifest[name]):
            raise ValueError("a cell holds no text")
        if not manifest["name"].is_unique:
            raise ValueError("two images have the same name")
        return manifest
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        reason = f"{error}".partition("\n")[0]
        raise UserError(f"{path} is no manifest ({reason}): run `dvc repro` again") from None


def draw_folds(params: Params, labelled: Labelled, count: int) -> list[Fold]:
    """Deal the images into ``count`` folds, class by class, with ``params.seed``.

    ``transform.val_fraction`` of what is not held out is for validation. A group stays whole.

    Raises:
        UserError: a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, names = labelled.images.labels, labelled.class_names
    members, _ = np.unique([labels, labelled.groups], axis=1)
    smallest = np.bincount(members, minlength=len(names))
    if smallest.min() < count:
        raise UserError(
            f"the class {names[smallest.argmin()]} has {smallest.min()} images of different "
            f"origin, too few for {count} folds: give fewer --folds"
        )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=params.seed)
    folds = []
    for rest, held_out in splitter.split(labels, labels, labelled.groups):
        generator = np.random.default_rng(params.seed)
        fraction = params.transform.val_fraction
        val = stratified_choice(labels[rest], labelled.groups[rest], fraction, generator, names)
        folds.append(Fold(rest[~val], rest[val], held_out))
    return folds


def out_of_fold(
    params: Params,
    labelled: Labelled,
    folds: Sequence[Fold],
    device: torch.device,
    advance: Callable[[int], object],
    tell: Callable[[str], object],
) -> Probabilities:
    """The probabilities of all images (float32, N x classes), from networks that never saw them.

    ``FINISHED`` keeps the results of finished folds until all are done, for a run that is stopped.
    ``advance`` is called with the number of further images trained on, ``tell`` with a line per
    fold.

    Raises:
        UserError: the loss stopped being finite.
    """
    labels = labelled.images.labels
    probabilities = np.empty((len(labels), len(labelled.class_names)), np.float32)
    members = [[part.tolist() for part in astuple(fold)] for fold in folds]
    kept = FINISHED / digest_of([fingerprint(params), members])
    for number, fold in enumerate(folds, start=1):
        path = kept / f"{number}.npy"
        if path.exists():
            judged = np.load(path)
            advance(params.train.epochs * len(fold.train))
        else:
            judged = predict_fold(params, labelled, fold, device, advance)
            with atomic_writer(path) as file:
                np.save(file, judged)
        probabilities[fold.held_out] = judged
        right = (judged.argmax(axis=1) == labels[fold.held_out]).mean()
        tell(f"part {number}/{len(folds)}: {right:.1%} of {len(judged):,} labels agree")
    shutil.rmtree(FINISHED)
    return probabilities


def predict_fold(
    params: Params,
    labelled: Labelled,
    fold: Fold,
    device: torch.device,
    advance: Callable[[int], object],
) -> Probabilities:
    """Train as ``params`` say, and predict the held-out images (float32, images x classes).

    ``advance`` is called with the number of further images trained on.

    Raises:
        UserError: the loss stopped being finite.
    """
    torch.manual_seed(params.seed)
    images, labels = labelled.images.images, labelled.images.labels
    train, val, held_out = (
        Split(images[part], labels[part]) for part in (fold.train, fold.val, fold.held_out)
    )
    splits, classes = {"train": train, "val": val}, len(labelled.class_names)
    shape, stats = labelled.image_shape, labelled.stats
    classifier, training = begin_training(params, splits, shape, stats, classes, device)
    seen = 0

    def at(epochs: int, images: int) -> None:
        nonlocal seen
        before, seen = seen, epochs * len(train) + images
        advance(seen - before)

    for result in training.run(lambda position: at(position.epoch - 1, position.images)):
        at(result.epoch, 0)
    at(params.train.epochs, 0)
    features = held_out if params.trains_on_features else None
    return predict(classifier, held_out, features).probabilities


def disputed(probabilities: Probabilities, labels: Labels) -> tuple[Labels, Labels]:
    """The indices of the images whose label is disputed, and the suggested labels.

    The threshold of a class is the mean of its probability over the images with that label. The
    suggested label is the most probable class that reaches its threshold (equations 1 and 2 of the
    paper). A label is disputed if the suggested one is another and more probable. The largest
    differences of the two probabilities come first.

    Args:
        probabilities: float32, N x classes, of networks that did not see the image.
        labels: int64, N; every class has one.
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == label, label].mean() for label in range(classes)]
    )
    reached = np.where(probabilities >= thresholds, probabilities, 0)
    suggested = reached.argmax(axis=1)
    everyone = np.arange(len(labels))
    margin = reached[everyone, suggested] - probabilities[everyone, labels]
    numbers = np.flatnonzero((suggested != labels) & (margin > 0))
    numbers = numbers[np.argsort(-margin[numbers], kind="stable")]
    return numbers, suggested[numbers]


def suspects_table(labelled: Labelled, probabilities: Probabilities) -> "pd.DataFrame":
    """A row per disputed label, the most doubtful first.

    Columns: ``name`` and ``split`` of the image, its ``label``, the ``suggested`` one, and the
    probability of both.
    """
    numbers, suggested = disputed(probabilities, labelled.images.labels)
    labels, names = labelled.images.labels[numbers], np.array(labelled.class_names)
    return labelled.rows.loc[numbers, ["name", "split"]].assign(
        label=names[labels],
        suggested=names[suggested],
        p_label=probabilities[numbers, labels].round(4),
        p_suggested=probabilities[numbers, suggested].round(4),
    )


def typical(labelled: Labelled, probabilities: Probabilities) -> dict[str, str]:
    """For each class, the name of its image with the highest probability."""
    labels = labelled.images.labels
    return {
        class_name: labelled.rows.at[
            int(np.where(labels == label, probabilities[:, label], -1).argmax()), "name"
        ]
        for label, class_name in enumerate(labelled.class_names)
    }
