"""The sections ``data`` and ``transform`` of params.yaml, and the fitting of images."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.functional_validators import AfterValidator

from imageclf.files import UserError
from imageclf.text import public_address, unicode_text

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Text = Annotated[str, AfterValidator(unicode_text)]
Address = Annotated[Text, AfterValidator(public_address)]
Auto = Literal["auto"]
Fit = Literal["crop", "fill", "pad", "stretch"]
Interpolation = Literal["bicubic", "bilinear"]

MOST_PIXELS = 512  # of a side of an image


class Fitting(NamedTuple):
    """How an image is fitted to the input of a network.

    Attributes:
        fit: see ``decoding.read``.
        interpolation: None is that of ``fit``.
        crop: the share of the shorter side that ``crop`` leaves; None is 224/255.
    """

    fit: Fit
    interpolation: Interpolation | None = None
    crop: float | None = None

    def stored(self) -> dict[str, Any]:
        """As JSON has it: by name, without what is None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Section(BaseModel):
    """A section of params.yaml. Strict: no value is converted, no unknown key is accepted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """The labelled images."""

    name: Literal["digits", "mnist", "fashion_mnist", "image_folder"]
    source: Address
    splits: dict[Literal["train", "val", "test"], Text | list[Text]]
    group_pattern: Text
    max_bad_fraction: Fraction
    max_leak_fraction: Annotated[float, Field(ge=0, le=1)]

    @field_validator("splits")
    @classmethod
    def train_is_one_of_the_splits(
        cls, splits: dict[str, str | list[str]]
    ) -> dict[str, str | list[str]]:
        folders = [
            each for some in splits.values() for each in ([some] if isinstance(some, str) else some)
        ]
        if splits and "train" not in splits:
            raise ValueError("name the folder of train, as the classes are those in it")
        if not all(splits.values()) or any(
            not folder or folder.startswith("/") or ".." in folder.split("/") for folder in folders
        ):
            raise ValueError("name folders in the source, such as training_set, or . for all of it")
        return splits

    @field_validator("group_pattern")
    @classmethod
    def the_pattern_is_a_regular_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return pattern


class Transform(Section):
    """How raw images become packed arrays and splits."""

    image_size: Auto | Annotated[int, Field(ge=4, le=MOST_PIXELS)]
    channels: Literal["auto", 1, 3]
    fit: Literal["crop", "pad", "stretch"]
    interpolation: Auto | Interpolation
    crop: Auto | Annotated[float, Field(gt=0, le=1)]
    packed_limit_gb: Annotated[float, Field(gt=0)]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    train_per_class: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def some_images_left_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction together leave no image to train on")
        return self

    @model_validator(mode="after")
    def only_crop_leaves_a_share(self) -> Self:
        if self.crop != "auto" and self.fit != "crop":
            raise ValueError(f"crop: {self.crop} needs fit: crop, not {self.fit}")
        return self

    def with_input(self, own: Mapping[str, Any] | None) -> Self:
        """These, where they say ``auto`` with a network's own values (see ``own_input``).

        Raises:
            UserError: the network takes larger images than this project.
        """
        found = {key: value for key, value in (own or {}).items() if getattr(self, key) == "auto"}
        if (side := found.get("image_size", 0)) > MOST_PIXELS:
            raise UserError(
                f"transform.image_size: the network's own, {side} pixels, is more than "
                f"{MOST_PIXELS}: choose another network, or set a smaller one"
            )
        return self.model_copy(update=found)

    @property
    def side(self) -> int:
        """``image_size``, which may not be ``auto`` any more."""
        assert isinstance(self.image_size, int)  # noqa: S101 - what Params and with_input hold
        return self.image_size

    @property
    def fitting(self) -> Fitting:
        """How images are fitted to that size."""
        interpolation = None if self.interpolation == "auto" else self.interpolation
        crop = None if self.crop == "auto" else self.crop
        return Fitting(self.fit, interpolation, crop if self.fit == "crop" else None)
