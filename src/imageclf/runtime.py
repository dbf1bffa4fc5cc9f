"""Where the work runs and how it repeats: device, threads, seeds, determinism."""

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imageclf.files import UserError
from imageclf.memory import keep_freed_memory
from imageclf.params import Params

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """The device that computes and how many threads it is given."""

    device: "torch.device"
    threads: int


def prepare_runtime(params: Params, computes: str | None = None) -> Runtime:
    """Choose device and threads, seed every generator, and make PyTorch repeatable.

    Call this before torch is first imported, so that the bound on OpenMP's spinning takes
    effect: on shared cores, threads that spin for a descheduled partner cost more than they bring.

    Args:
        params: ``seed``, ``runtime``, and ``model.name``.
        computes: what network will, where it is not that one.

    Raises:
        UserError: ``runtime.device`` names a device that this machine lacks.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    keep_freed_memory()
    device = _device(params.runtime.device)
    threads = params.runtime.threads
    if threads == "auto":
        threads = _automatic_threads(computes or params.model.name)
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), without importing the compiler (1.5 s).
    # Some layers of torchvision's networks cannot repeat on a GPU: there it warns and goes on.
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
    # Nor does it fill all fresh memory with NaN then: a sixth of a convolutional network's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(params.seed)
    random.seed(params.seed)
    return Runtime(device, threads)


def generator_states(device: "torch.device") -> dict[str, "torch.Tensor"]:
    """The state of every random generator that a training on ``device`` draws from."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_generators(states: dict[str, "torch.Tensor"], device: "torch.device") -> None:
    """Put the generators back to ``states``; one that was not in use then stays as it is."""
    import torch

    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    if "mps" in states and device.type == "mps":
        torch.mps.set_rng_state(states["mps"].cpu())


def _automatic_threads(model: str) -> int:
    """A rule, never a measurement: the number of threads changes how sums are rounded."""
    if model.startswith("mlp"):
        return 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(wanted: str) -> "torch.device":
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device(wanted)
    present = {
        "cpu": True,
        "cuda": cuda and (device.index or 0) < torch.cuda.device_count(),
        "mps": mps,
    }
    if not present[device.type]:
        raise UserError(
            f"runtime.device: {wanted} is not present on this machine; use auto or cpu "
            f"(torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices)"
        )
    return device
