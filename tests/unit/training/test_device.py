import os
import random

import pytest
import torch

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.training.device import Place, embeds_in_bf16, place, prepare_runtime
from imageclf.training.torchrun import processes_to_start

# What torchrun tells the second of four processes, on the second of two machines.
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
}


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


@pytest.mark.parametrize("amp", ["none", "bf16"])
@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:1"])
def test_features_are_computed_in_bf16_on_cuda_alone_and_where_params_say_so(
    device: str, amp: str
) -> None:
    expected = amp == "bf16" and device.startswith("cuda")
    assert embeds_in_bf16(amp, torch.device(device)) == expected


def test_determinism_is_asked_for_and_spinning_is_bounded() -> None:
    prepare_runtime(make_params())
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["GOMP_SPINCOUNT"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    assert prepare_runtime(make_params(runtime__device="auto")).device.type in {"cpu", "mps"}
    with pytest.raises(UserError, match="runtime.device: cuda is not present"):
        prepare_runtime(make_params(runtime__device="cuda"))


def test_torchrun_tells_the_place_and_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "3")  # as a cluster may set it
    assert place() is None
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(local_rank=1, local_size=2, machine=1)
    cores = len(os.sched_getaffinity(0))
    assert prepare_runtime(make_params(model__name="cnn")).threads == max(1, cores // 2)


def test_torchrun_starts_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(**changes: object) -> int:
        return processes_to_start(make_params(**changes).runtime)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert asked() == asked(runtime__processes=1) == 0
    assert asked(runtime__processes=3) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert asked() == asked(runtime__device="cuda") == 8
    assert asked(runtime__device="cpu") == asked(runtime__device="cuda:1") == 0
    monkeypatch.setenv("PET_NNODES", "2")
    assert asked(runtime__processes=1) == 1
