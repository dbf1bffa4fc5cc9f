import re

import numpy as np
import pytest
import torch

from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import Split
from imageclf.training.augment import epoch_order
from imageclf.training.preview import preview


@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (6, 8, 8, 3)])
def test_it_shows_the_pixels_and_leaves_the_generator_alone(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    train = Split(images, np.arange(6) % 4)
    before = torch.get_rng_state()
    plain = preview(make_params(), train, [*"abcd"], count=6)
    assert np.array_equal(plain.seen, plain.originals)
    changed = preview(make_params(augment__shift=2), train, [*"abcd"], count=6)
    assert np.array_equal(changed.originals, plain.originals)
    assert not np.array_equal(changed.seen, plain.seen)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_shows_the_first_images_of_the_first_epoch_with_their_classes() -> None:
    params, train = make_params(), learnable_split(40, seed=0)
    seen = preview(params, train, [*"abcd"], count=4)
    first = epoch_order(40, params.seed, epoch=1)[:4]
    assert np.array_equal(seen.originals, train.images[first])
    assert seen.names == ["abcd"[label] for label in train.labels[first]]
    assert seen.captions == [""] * 4


def test_what_was_mixed_is_told_below_the_image() -> None:
    params = make_params(augment__mixup=1.0)
    seen = preview(params, learnable_split(40, seed=0), [*"abcd"], count=8)
    mixed = [caption for caption in seen.captions if caption]
    assert len(mixed) >= 2
    assert all(re.fullmatch(r"\d+% [a-d]\n\d+% [a-d]", caption) for caption in mixed)
