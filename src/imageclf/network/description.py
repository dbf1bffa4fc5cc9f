"""The description of a classifier: the schema of ``model.json`` and of an ONNX file's metadata.

Both may come from other machines. They are checked, with upper limits, before anything is
allocated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    ValidationError,
    model_validator,
)

from imageclf.data.shapes import shape_in_memory
from imageclf.files import UserError, write_json
from imageclf.params import Model
from imageclf.sections import Fit, Fitting, Interpolation, Section

Kind = TypeVar("Kind", bound=Section)

MODEL_JSON = "model.json"
# The values of section ``model`` that matter in a training alone: a loaded network needs none.
WHOLE = {"weights": "none", "freeze": "none", "drop_path": "auto"}
MAX_BYTES = 2**25  # of model.json, with the most and the longest class names
MAX_CLASSES = 2**16


def _all_different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("two classes have the same name")
    return names


def _grey_or_rgb(shape: list[int]) -> list[int]:
    if shape[2:] not in ([], [3]):
        raise ValueError(f"images have 3 channels or none, not {shape[2]}")
    return shape


def _whole(model: Any) -> Any:
    if isinstance(model, Model):
        return model.model_copy(update=WHOLE)
    return model | WHOLE if isinstance(model, dict) else model


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
ClassNames = Annotated[
    # The name of a folder has at most 255 bytes.
    list[Annotated[str, Field(min_length=1, max_length=255)]],
    Field(min_length=2, max_length=MAX_CLASSES),
    AfterValidator(_all_different),
]
ImageShape = Annotated[
    list[Annotated[int, Field(ge=1, le=512)]],
    Field(min_length=2, max_length=3),
    AfterValidator(_grey_or_rgb),
]
Share = Annotated[float, Field(ge=0, le=1)]
# A single pixel among 10 ** 12 that differs by 1/255 gives a higher one.
Spread = Annotated[float, Field(ge=1e-9, le=1)]


class Description(Section):
    """Everything needed to rebuild a classifier from its weights, and what it was made from.

    Attributes:
        fingerprint: sha256 over all that determined the training.
        class_names: name of each output.
        image_shape: (H, W) or (H, W, 3) of the uint8 images it takes.
        fit: how an image is fitted to that shape; see ``Fitting``, also for the next two.
        interpolation: not written if it is that of ``fit``.
        crop: not written if it is the usual one.
        mean: per channel, of pixels scaled to 0..1; subtracted first.
        std: per channel; the divisor after that.
        model: the section ``model`` of the parameters, with ``WHOLE``, which is not written.
        data: sha256 of the train and the val split.
        weights: the origin of the pretrained weights; empty if all were drawn at random.
        epoch: the epoch, from 1, whose weights these are; 0 until the training ends.
    """

    fingerprint: Sha256
    class_names: ClassNames
    image_shape: ImageShape
    fit: Fit
    interpolation: Interpolation | None = None
    crop: Share | None = None
    mean: list[Share]
    std: list[Spread]
    model: Annotated[Model, BeforeValidator(_whole)]
    data: dict[str, Sha256]
    weights: dict[str, str]
    epoch: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def a_mean_and_a_std_for_each_channel(self) -> Self:
        """Refuse others."""
        channels = shape_in_memory(self.image_shape)[2]
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"images of {channels} channels need as many values of mean and std")
        return self

    def write(self, folder: Path) -> None:
        """Write ``model.json``."""
        values = self.model_dump(exclude={"model": set(WHOLE)}, exclude_none=True)
        write_json(folder / MODEL_JSON, values)

    @property
    def fitting(self) -> Fitting:
        """How an image is fitted to ``image_shape``."""
        return Fitting(self.fit, self.interpolation, self.crop)


class Metadata(Section):
    """The metadata of an exported ONNX file: strings, with the values of ``Description``."""

    model_config = ConfigDict(extra="ignore")  # a tool that rewrites the file may add its own

    class_names: Json[ClassNames]
    image_shape: Json[ImageShape]
    fit: Fit
    interpolation: Interpolation | None = None
    crop: Json[Share] | None = None
    fingerprint: Sha256

    @property
    def fitting(self) -> Fitting:
        """How an image is fitted to ``image_shape``."""
        return Fitting(self.fit, self.interpolation, self.crop)


class _Fingerprint(Section):
    """The only value that every version of this project has written."""

    model_config = ConfigDict(extra="ignore")

    fingerprint: Sha256


def describe(**values: Any) -> Description:
    """The description of what is about to be trained.

    Raises:
        UserError: a value, such as the name of a class, is beyond the limits of the schema.
    """
    try:
        return Description(**values)
    except ValidationError as error:
        raise UserError(f"no model can be described: {_first(error)}") from None


def read_description(folder: Path) -> Description:
    """The description in a model's folder.

    Raises:
        UserError: it is missing, too large, or does not fit the schema.
    """
    return _read(folder, Description)


def read_fingerprint(folder: Path) -> str:
    """The fingerprint in a model's folder, also of another version of this project.

    Raises:
        UserError: as ``read_description``.
    """
    return _read(folder, _Fingerprint).fingerprint


def read_metadata(file: Path, metadata: Mapping[str, str]) -> Metadata:
    """Check the metadata of an ONNX file.

    Raises:
        UserError: the file is not one that this project exported.
    """
    required = [name for name, field in Metadata.model_fields.items() if field.is_required()]
    if lacking := ", ".join(name for name in required if name not in metadata):
        raise UserError(f"{file} was not exported by this project: it has no {lacking}")
    try:
        return Metadata.model_validate(dict(metadata))
    except ValidationError as error:
        raise UserError(
            f"{file} was not exported by this project: in its metadata, {_first(error)}"
        ) from None


def _read(folder: Path, kind: type[Kind]) -> Kind:
    path = folder / MODEL_JSON
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro` to make it")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than any description of a model")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is none of this version's ({_first(error)}): run `dvc repro train` there again"
        ) from None


def _first(error: ValidationError) -> str:
    """The first problem, in a few words, without the value, which may have any length."""
    detail = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part)[:50] for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").splitlines()[0][:200]
    message = f"{message[0].lower()}{message[1:]}"
    return f"{place}: {message}" if place else message
