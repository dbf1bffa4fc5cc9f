import os
import random

import pytest
import torch

from imageclf.files import UserError
from imageclf.runtime import prepare_runtime
from support import make_params


def test_seeds_repeat_every_generator() -> None:
    draws = []
    for _ in range(2):
        prepare_runtime(make_params(seed=7))
        draws.append((torch.rand(3).tolist(), random.random()))
    assert draws[0] == draws[1]


def test_threads_follow_a_rule_by_model() -> None:
    assert prepare_runtime(make_params()).threads == 1
    cores = len(os.sched_getaffinity(0))
    assert prepare_runtime(make_params(model__name="cnn")).threads == cores
    assert prepare_runtime(make_params(runtime__threads=3)).threads == torch.get_num_threads() == 3


def test_determinism_is_asked_for_and_spinning_is_bounded() -> None:
    prepare_runtime(make_params())
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["GOMP_SPINCOUNT"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    assert prepare_runtime(make_params(runtime__device="auto")).device.type in {"cpu", "mps"}
    with pytest.raises(UserError, match="runtime.device: cuda is not present"):
        prepare_runtime(make_params(runtime__device="cuda"))
