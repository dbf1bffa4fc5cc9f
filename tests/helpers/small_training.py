"""A training of a second, on images that are easy to learn."""

import torch

from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import pixel_counts, stats_of
from imageclf.network.classifier import Classifier, build_classifier
from imageclf.params import Params
from imageclf.training.loop import (
    Training,
)

TRAIN, VAL = learnable_split(400, seed=0), learnable_split(100, seed=1)


def small(**changes: object) -> Params:
    settings = {"model__hidden": [16], "train__epochs": 4, "train__batch_size": 20}
    return make_params(**settings | changes)


def fresh(params: Params) -> Classifier:
    torch.manual_seed(params.seed)
    return build_classifier(params.model, stats_of(pixel_counts(TRAIN.images)), (8, 8, 1), 4)


def training(params: Params) -> Training:
    return Training(params, fresh(params), TRAIN, VAL, classes=4)
