"""The schema of params.yaml: typed and frozen; unknown keys are refused.

Every value is checked before any work starts. The comments in params.yaml explain the values.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import ErrorDetails

from imageclf.files import UserError, read_yaml
from imageclf.network_names import (
    DROP_PATH,
    TIMM,
    image_sides,
    is_network,
    is_published,
    nearest_networks,
)
from imageclf.sections import Address, Auto, Data, Fraction, Positive, Section, Text, Transform
from imageclf.text import model_name

# Two neighbouring layers of the most units have as many parameters as a network may have.
Layers = Annotated[list[Annotated[int, Field(gt=0, le=2**15)]], Field(max_length=100)]

REGISTERED = r"models:/[^/@:]+(/\d+|@[^/@:]+)"
WITH_CHECKSUM = r"https?://\S+#sha256=[0-9a-f]{64}"
LONGEST_NAME = 250  # characters; MLflow's databases have 256
OUTPUT_OF_LOSS = {"nll": "log_softmax", "cross_entropy": "logits", "mse": "softmax"}


class Augment(Section):
    """Random changes to train images, drawn for each image; 0, 1 or false is none."""

    shift: Annotated[int, Field(ge=0)]
    flip: bool
    rotate: Annotated[float, Field(ge=0, le=180)]
    crop_scale: Annotated[float, Field(gt=0, le=1)]
    brightness: Fraction
    contrast: Fraction
    cutout: Annotated[int, Field(ge=0)]
    erase: Annotated[float, Field(ge=0, le=1)]
    policy: Literal["none", "randaugment", "trivialaugment"]
    mixup: Annotated[float, Field(ge=0)]
    cutmix: Annotated[float, Field(ge=0)]

    @property
    def changes_nothing(self) -> bool:
        """Whether images are not changed."""
        unchanged = {"crop_scale": 1, "policy": "none"}
        return all(value == unchanged.get(name, 0) for name, value in self)


class Model(Section):
    """The network and its normalisation."""

    name: Text
    weights: Address
    freeze: Literal["none", "backbone", "then"]
    head: Layers
    hidden: Layers
    width: Annotated[int, Field(gt=0, le=2**12)]
    depth: Annotated[int, Field(gt=0, le=200)]  # ResNet-1202 of arXiv:1512.03385 has 200
    stages: Annotated[int, Field(ge=1, le=5)]  # five reduce 28 pixels to one
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu"]
    dropout: Fraction
    drop_path: Auto | Fraction
    init: Literal[
        "default",
        "normal",
        "uniform",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "orthogonal",
        "zeros",
    ]
    init_std: Annotated[float, Field(gt=0)]
    output: Literal["logits", "log_softmax", "softmax"]
    normalize: Literal["standard", "none"]

    @field_validator("name")
    @classmethod
    def an_architecture_has_that_name(cls, name: str) -> str:
        if not is_network(name):
            *others, last = nearest_networks(name)
            nearest = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"there is no architecture {name}; did you mean {nearest}?")
        return name

    @field_validator("weights")
    @classmethod
    def the_weights_have_a_place(cls, weights: str) -> str:
        if not weights:
            raise ValueError("write none for weights that are drawn at random")
        if weights.startswith("models:") and not re.fullmatch(REGISTERED, weights):
            raise ValueError(f"{weights} is no model: models:/NAME/3 and models:/NAME@champion are")
        if "://" in weights and not re.fullmatch(WITH_CHECKSUM, weights):
            raise ValueError(
                "an http address needs its checksum: URL#sha256= and 64 hexadecimal digits"
            )
        return weights

    @model_validator(mode="after")
    def weights_fit_the_rest(self) -> Self:
        if self.weights == "imagenet" and not is_published(self.name):
            raise ValueError(
                f"weights: imagenet are those of torchvision's networks and timm's, and there are "
                f"none of name: {self.name}"
            )
        if self.freeze != "none" and not self.pretrained:
            raise ValueError(
                f"freeze: {self.freeze} needs weights: a frozen backbone keeps its random ones"
            )
        return self

    @model_validator(mode="after")
    def drop_path_has_blocks_to_skip(self) -> Self:
        if self.drop_path in ("auto", 0):
            return self
        if not self.name.startswith((TIMM, *DROP_PATH)):
            raise ValueError(
                f"drop_path: {self.drop_path} is for timm's networks, and torchvision's "
                f"{', '.join(DROP_PATH)}: name: {self.name} has no blocks to skip"
            )
        if self.freeze == "backbone":
            raise ValueError(
                f"drop_path: {self.drop_path} does nothing with freeze: backbone, as no "
                "block learns"
            )
        return self

    @property
    def pretrained(self) -> bool:
        """Whether the backbone begins with weights from another training."""
        return self.weights != "none"


class Train(Section):
    """The optimisation."""

    epochs: Positive
    head_epochs: Positive
    batch_size: Positive
    accumulate: Positive
    loss: Literal["cross_entropy", "nll", "mse"]
    label_smoothing: Fraction
    class_weights: Literal["none", "balanced"]
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"]
    learning_rate: Annotated[float, Field(gt=0)]
    backbone_rate: Annotated[float, Field(gt=0, le=1)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    momentum: Fraction
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["constant", "step", "cosine", "one_cycle"]
    warmup: Fraction
    clip_gradient: Annotated[float, Field(ge=0)]
    ema: Fraction
    patience: Annotated[int, Field(ge=0)]
    amp: Literal["none", "bf16"]
    compile: bool
    sanity_checks: bool

    @model_validator(mode="after")
    def momentum_fits_the_optimizer(self) -> Self:
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(
                f"momentum: {self.momentum} needs optimizer: sgd or rmsprop; {self.optimizer} has "
                "its own"
            )
        if self.nesterov and (self.momentum == 0 or self.optimizer != "sgd"):
            raise ValueError("nesterov: true needs optimizer: sgd and a momentum above 0")
        return self


class Evaluate(Section):
    """What is measured on the test split."""

    top_k: Positive
    calibrate: Literal["none", "temperature"]
    pictures: Annotated[int, Field(gt=0, le=256)]


class Export(Section):
    """When an exported file agrees with the model."""

    tolerance: Annotated[float, Field(gt=0, lt=0.1)]


class Register(Section):
    """Where MLflow keeps the runs and the model versions."""

    experiment: Annotated[str, Field(max_length=LONGEST_NAME, pattern=r"^\S(.*\S)?$")]
    name: Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(model_name)]


class Runtime(Section):
    """Where and how fast to compute: no stage lists these, so changing them reruns nothing."""

    device: str
    threads: Literal["auto"] | Positive
    processes: Literal["auto"] | Positive
    checkpoint_minutes: Annotated[float, Field(gt=0)]

    @field_validator("device")
    @classmethod
    def torch_knows_the_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError(f"use auto, cpu, mps, cuda or cuda:1, not {device!r}")
        return device

    @model_validator(mode="after")
    def several_processes_have_a_device_each(self) -> Self:
        if self.processes not in ("auto", 1) and (":" in self.device or self.device == "mps"):
            raise ValueError(
                f"processes: {self.processes} do not fit on device: {self.device}; "
                "use auto, cpu or cuda"
            )
        return self


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    transform: Transform
    augment: Augment
    model: Model
    train: Train
    evaluate: Evaluate
    export: Export
    register_: Annotated[Register, Field(alias="register")]
    runtime: Runtime

    @model_validator(mode="after")
    def sections_fit_the_model(self) -> Self:
        model, train = self.model, self.train
        if model.output != (wanted := OUTPUT_OF_LOSS[train.loss]):
            raise ValueError(
                f"train.loss: {train.loss} needs model.output: {wanted}, not {model.output}"
            )
        if train.layer_decay < 1 and (not model.pretrained or model.freeze == "backbone"):
            raise ValueError(
                f"train.layer_decay: {train.layer_decay} needs model.weights, and a backbone that "
                "learns (model.freeze: none or then)"
            )
        if model.freeze == "then" and train.head_epochs >= train.epochs:
            raise ValueError(
                f"model.freeze: then needs more train.epochs than train.head_epochs "
                f"({train.head_epochs}), not {train.epochs}"
            )
        return self

    @model_validator(mode="after")
    def images_fit_the_model(self) -> Self:
        sides, side = image_sides(self.model.name), self.transform.image_size
        if side == "auto" and not is_published(self.model.name):
            raise ValueError(
                f"transform.image_size: auto is for the networks of torchvision and timm: say it "
                f"for model.name: {self.model.name}"
            )
        if side != "auto" and side not in sides:
            raise ValueError(
                f"model.name: {self.model.name} is made for images of {sides.start} to "
                f"{sides.stop - 1} pixels, but transform.image_size is {side}"
            )
        return self

    @model_validator(mode="after")
    def augmentation_leaves_something_of_an_image(self) -> Self:
        side = self.transform.image_size
        for name in ("shift", "cutout"):
            if side != "auto" and (pixels := getattr(self.augment, name)) >= side:
                raise ValueError(
                    f"augment.{name}: {pixels} leaves nothing of an image of {side} pixels "
                    "(transform.image_size)"
                )
        return self

    @model_validator(mode="after")
    def batch_norm_sees_several_images(self) -> Self:
        has_batch_norm = not self.model.name.startswith("mlp") and self.model.freeze != "backbone"
        if self.train.batch_size == 1 and has_batch_norm:
            raise ValueError(
                f"train.batch_size: 1 is too small: model.name: {self.model.name} normalises over "
                "a batch, and one image has no variance"
            )
        return self

    @property
    def trains_on_features(self) -> bool:
        """Whether the features of an image never change, so that they are computed once."""
        return self.model.freeze == "backbone" and self.augment.changes_nothing


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or does not fit the schema. The message names
            each wrong key by its dotted path, and the nearest valid key.
    """
    return check_params(read_yaml(path), str(path))


def check_params(values: Any, source: str) -> Params:
    """Check plain values against the schema; ``source`` names them in an error."""
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no parameters: restore it from git")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(detail) for detail in error.errors())
        raise UserError(f"{source}: {problems}") from None


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """The values of all sections as one mapping by dotted path: ``{"train.epochs": 20, ...}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def tracked_values(params: Params) -> dict[str, Any]:
    """Every parameter that decides a number or a name, by dotted path: all but ``runtime``."""
    return flatten(params.model_dump(by_alias=True, exclude={"runtime"}))


def known_keys() -> list[str]:
    """The dotted path of every leaf of the schema, in the order of params.yaml."""
    keys = []
    for name, field in Params.model_fields.items():
        path, leaves = field.alias or name, getattr(field.annotation, "model_fields", None)
        keys += [f"{path}.{leaf}" for leaf in leaves] if leaves else [path]
    return keys


def _explain(detail: ErrorDetails) -> str:
    # Parts that are no key, such as "constrained-int", name a tried branch of a union.
    path = ".".join(
        str(part) for part in detail["loc"] if isinstance(part, int) or part.isidentifier()
    )
    if detail["type"] == "extra_forbidden":
        keys = known_keys()
        candidates = keys + sorted({key.split(".")[0] for key in keys})
        nearest = difflib.get_close_matches(path, candidates, n=1, cutoff=0)
        return f"{path} is not a parameter; did you mean {nearest[0]}?"
    if detail["type"] == "missing":
        return f"{path} is missing: add it as in the params.yaml of this version"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {detail['input']!r}"
    return f"{path}: {message}" if path else message
