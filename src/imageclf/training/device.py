"""Where the work runs and how it is repeated: device, threads, seeds, determinism."""

import os
import platform
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imageclf.files import UserError
from imageclf.params import Params
from imageclf.system.machine import cores, keep_freed_memory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """The device that computes, and its number of threads."""

    device: "torch.device"
    threads: int


@dataclass(frozen=True)
class Place:
    """The place of this process among those that torchrun started.

    Attributes:
        local_rank: the number of this process on this machine, from 0.
        local_size: the number of processes on this machine.
        machine: the number of this machine.
    """

    local_rank: int
    local_size: int
    machine: int


def place() -> Place | None:
    """The place of this process; None if torchrun did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    return Place(*(int(os.environ[name]) for name in names))


def prepare_runtime(params: Params, computes: str | None = None) -> Runtime:
    """Choose device and threads, seed every generator, and make PyTorch repeatable.

    Call it before torch is first imported, so that the bound on OpenMP's spinning takes effect.

    Args:
        params: ``seed``, ``runtime``, and ``model.name``.
        computes: the network that will compute, if it is another than ``model.name``.

    Raises:
        UserError: ``runtime.device`` names a device that this machine lacks.
    """
    prepare_torch()
    import torch

    keep_freed_memory()
    here = place()
    device = _device(params.runtime.device, here)
    threads = params.runtime.threads
    if threads == "auto":
        processes = here.local_size if here else 1
        threads = _automatic_threads(computes or params.model.name, processes)
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), without importing the compiler (1.5 s).
    # On a GPU some layers of torchvision's networks are not deterministic: it only warns there.
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
    # It would fill all fresh memory with NaN, a sixth of a convolutional network's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(params.seed)
    random.seed(params.seed)
    return Runtime(device, threads)


def prepare_torch() -> None:
    """Set the environment variables that torch's libraries read on import, and import numpy.

    OpenMP's threads must not spin for long: on shared cores a thread that waits for a descheduled
    one wastes time. Torch would import numpy itself, and lose a Ctrl-C during that.
    """
    import numpy  # noqa: F401

    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _automatic_threads(model: str, processes: int) -> int:
    """A rule, not a measurement: the number of threads changes the rounding of sums."""
    if model.startswith("mlp"):
        return 1
    return max(1, cores() // processes)


def _device(wanted: str, here: Place | None) -> "torch.device":
    """The device by name; each of several processes on one machine has the GPU of its number."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps and not here else "cpu"
    device = torch.device(wanted)
    if here and device.type == "cuda":
        device = torch.device("cuda", here.local_rank)
    present = {
        "cpu": True,
        "cuda": cuda and (device.index or 0) < torch.cuda.device_count(),
        "mps": mps,
    }
    if not present[device.type]:
        or_fewer = ", or fewer runtime.processes" if here else ""
        raise UserError(
            f"runtime.device: {device} is not present on this machine; use auto or cpu{or_fewer} "
            f"(torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices)"
        )
    if here and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def embeds_in_bf16(amp: str, device: "torch.device") -> bool:
    """Whether a frozen backbone computes in bf16, as ``train.amp`` says: on CUDA alone."""
    return amp == "bf16" and device.type == "cuda"


def hardware_name(device: "torch.device") -> str:
    """The name of the GPU or the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    with suppress(OSError):  # only Linux has the file, and on ARM it has no such line
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
