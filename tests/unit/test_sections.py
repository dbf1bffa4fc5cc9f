import pytest

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.sections import Fitting

LITE0 = {"model__name": "timm/tf_efficientnet_lite0"}
OWN = {"image_size": 224, "interpolation": "bicubic", "crop": 0.875}


def test_what_is_left_to_the_network_is_its_own() -> None:
    transform = make_params(transform__image_size="auto", **LITE0).transform.with_input(OWN)
    assert transform.side == 224
    assert transform.fitting == Fitting("crop", "bicubic", 0.875)


def test_what_is_said_stays() -> None:
    said = {"image_size": 64, "interpolation": "bilinear", "crop": 0.5}
    changes = {f"transform__{key}": value for key, value in said.items()}
    transform = make_params(**changes, **LITE0).transform.with_input(OWN)
    assert (transform.side, transform.fitting) == (64, Fitting("crop", "bilinear", 0.5))


def test_a_whole_image_has_no_crop() -> None:
    transform = make_params(
        transform__fit="pad", transform__image_size="auto", **LITE0
    ).transform.with_input(OWN)
    assert transform.fitting == Fitting("pad", "bicubic")


def test_without_a_network_of_its_own_the_usual_is_done() -> None:
    transform = make_params().transform.with_input(None)
    assert (transform.side, transform.fitting) == (28, Fitting("crop"))


def test_a_network_of_larger_images_than_ours_is_refused() -> None:
    transform = make_params(transform__image_size="auto", **LITE0).transform
    with pytest.raises(UserError, match="the network's own, 768 pixels, is more than 512"):
        transform.with_input(OWN | {"image_size": 768})
