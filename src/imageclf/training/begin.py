"""What a training needs before its first step: the device, the network and the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclf.files import read_json
from imageclf.params import Params
from imageclf.project.folder import FEATURES, PREPARED, PRETRAINED
from imageclf.sections import Fitting
from imageclf.training.device import Runtime, prepare_runtime

if TYPE_CHECKING:
    import torch

    from imageclf.data.prepared import Split
    from imageclf.network.classifier import Classifier
    from imageclf.network.description import Description
    from imageclf.training.batch_sharing import Group
    from imageclf.training.loop import Training

SPLITS = ("train", "val")  # the test split judges the model, and stays out of its training


def runtime_of(params: Params) -> Runtime:
    """The device and threads of the training; call it before torch is imported.

    A head that is trained on features counts as a small fully connected network.
    """
    return prepare_runtime(params, "mlp" if params.trains_on_features else params.model.name)


def begin_training(
    params: Params,
    splits: "Mapping[str, Split]",
    shape: Sequence[int],
    stats: dict[str, Any],
    classes: int,
    device: "torch.device",
    group: "Group | None" = None,
) -> "tuple[Classifier, Training]":
    """The whole classifier, and a training of it, or of its head only, before its first step.

    ``splits`` are the images of ``SPLITS``, or their features if ``params.trains_on_features``.
    ``shape`` (H, W, C) is that of the images, ``stats`` are those of the train split (see
    ``prepared.stats_of``). A ``group`` of processes shares each batch.

    Raises:
        UserError: the pretrained weights do not fit the parameters or the images.
    """
    from imageclf.network.pretrained import begin_classifier
    from imageclf.training.loop import Training

    classifier = begin_classifier(params.model, stats, PRETRAINED, shape, classes).to(device)
    learns = classifier.network.head if params.trains_on_features else classifier
    train, val = (splits[name] for name in SPLITS)
    return classifier, Training(params, learns, train, val, classes, group)


def begin_from_files(
    params: Params, device: "torch.device", group: "Group | None" = None
) -> "tuple[Classifier, Training]":
    """``begin_training`` on the files of the earlier stages.

    Raises:
        UserError: a file is missing, or as in ``begin_training``.
    """
    from imageclf.data.prepared import load_class_names

    splits, shape = load_learnt(params, PREPARED)
    stats, classes = read_json(PREPARED / "stats.json"), len(load_class_names(PREPARED))
    return begin_training(params, splits, shape, stats, classes, device, group)


def load_learnt(params: Params, prepared: Path) -> "tuple[dict[str, Split], Sequence[int]]":
    """What the training learns from, by the names of ``SPLITS``, and the shape of the images.

    It is the images, or their features if ``params.trains_on_features``.

    Raises:
        UserError: a file is missing, or does not belong to the others.
    """
    from imageclf.data.prepared import load_features, load_split

    splits = {name: load_split(prepared, name) for name in SPLITS}
    shape = splits["train"].images.shape[1:]
    if params.trains_on_features:
        splits = {name: load_features(FEATURES, name, split) for name, split in splits.items()}
    return splits, shape


def describe_classifier(params: Params) -> "Description":
    """The content of model.json, except ``epoch``, which is 0 until the training ends.

    Raises:
        UserError: a file is missing, or a value is beyond the limits of model.json.
    """
    from imageclf.data.prepared import load_class_names, load_split, split_digest
    from imageclf.data.shapes import stored_shape
    from imageclf.network.description import describe
    from imageclf.network.pretrained import read_pretrained
    from imageclf.training.fingerprint import fingerprint

    stats, pretrained = read_json(PREPARED / "stats.json"), read_pretrained(PRETRAINED)
    return describe(
        fingerprint=fingerprint(params),
        class_names=load_class_names(PREPARED),
        image_shape=list(stored_shape(load_split(PREPARED, "train").images.shape[1:])),
        **{name: stats[name] for name in Fitting._fields if name in stats},
        mean=pretrained.mean if pretrained else stats["mean"],
        std=pretrained.std if pretrained else stats["std"],
        model=params.model,
        data={name: split_digest(PREPARED, name) for name in SPLITS},
        weights=pretrained.origin if pretrained else {},
        epoch=0,
    )
