"""Start a training in several processes by torchrun, and end all of them together.

torchrun starts the processes, numbers them, and ends the others when one has failed. This module
adds: one line about an error, whichever process failed; time for the first process, which alone
writes, to end; and no process outlives torchrun.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from imageclf.files import UserError
from imageclf.params import Runtime
from imageclf.system.parent import end_with_parent
from imageclf.text import printable
from imageclf.training.device import place, prepare_torch

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from imageclf.training.batch_sharing import Group

# For the first process, after another failed: it reports to MLflow for up to 15 seconds.
LAST_WORDS = timedelta(seconds=25)
ENDED = "the first process ended"


def processes_to_start(wanted: Runtime) -> int:
    """How many processes to start on this machine; 0 if this process trains alone."""
    processes = _gpus(wanted.device) or 1 if wanted.processes == "auto" else wanted.processes
    return 0 if processes == 1 and "PET_NNODES" not in os.environ else processes


def _gpus(device: str) -> int:
    if device not in ("auto", "cuda"):
        return 0
    prepare_torch()
    import torch

    return torch.cuda.device_count()


def launch(processes: int) -> None:
    """Run the current command again in ``processes`` processes, and wait for them.

    torchrun reads its options that name other machines from PET_NNODES, PET_NODE_RANK,
    PET_MASTER_ADDR and so on.

    Raises:
        UserError: one of them was killed.
        SystemExit: one of them failed, and has printed the reason.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable()  # torchrun would log the same errors at length
    try:
        # torchrun's own logs would be empty, and stay in the system's temporary folder.
        options = [f"--nproc-per-node={processes}", f"--log-dir={os.devnull}"]
        run(parse_args([*options, *sys.argv]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            sys.exit(failure.exitcode)
        raise UserError(
            f"process {rank} of the training was ended by {failure.signal_name()}; "
            "`dvc repro` goes on from the last checkpoint"
        ) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        signal.signal(error.sigval, signal.SIG_DFL)
        signal.raise_signal(error.sigval)


@contextmanager
def joined() -> Iterator["Group"]:
    """The group of the processes that torchrun started; each of them enters it.

    An error in one ends all of them, with exit code 2 for a UserError. The first process that fails
    on a machine prints the error there.
    """
    prepare_torch()
    from torch import cuda, distributed
    from torch.distributed.rendezvous import rendezvous

    from imageclf.training.batch_sharing import Group

    here = place()
    assert here  # noqa: S101 - torchrun started this
    end_with_parent()
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Group(rank, size)
        _leave(store, rank, distributed.default_pg_timeout)
    except KeyboardInterrupt:  # torchrun reports it
        distributed.destroy_process_group()  # its threads fail while the interpreter ends
        sys.exit(1)
    except Exception as error:
        distributed.destroy_process_group()  # so that others do not wait for this one
        first = store.add(f"failures on machine {here.machine}", 1) == 1
        cause = store.compare_set("cause", "", f"{error}").decode()
        if first:
            _tell(error, cause)
        with suppress(RuntimeError):  # the first process hangs on its GPU: torchrun kills it
            _leave(store, rank, LAST_WORDS)
        sys.exit(2 if isinstance(error, UserError) else 1)
    distributed.destroy_process_group()


def _leave(store: "Store", rank: int, patience: timedelta) -> None:
    """Wait until the first process has ended: after a failure torchrun kills the rest."""
    if rank == 0:
        store.set(ENDED, "")
    else:
        store.wait([ENDED], patience)


def _tell(error: Exception, cause: str) -> None:
    if isinstance(error, UserError):
        print(f"error: {printable(cause)}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
