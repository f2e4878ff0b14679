"""Runs a function on several processes of this machine, as ranks of a job, through submitit's local executor."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import NoReturn, TypeVar

from bigchem.launch.rendezvous.secret import VARIABLE, new_key
from bigchem.train.health import peers

R = TypeVar("R")


def on_ranks(function: Callable[..., R], processes: int, timeout_min: float, *args: object, gpus: bool) -> list[R]:
    """Runs function(device, *args) in each process, as ranks of one process group; returns results in rank order. gpus:
    one each.

    SIGTERM, on which submitit's controller does not act, ends the processes too; Ctrl-C reaches them by itself.
    """
    import submitit

    with tempfile.TemporaryDirectory() as folder:
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(
            timeout_min=timeout_min, tasks_per_node=processes, gpus_per_node=processes if gpus else 0
        )
        job = executor.submit(_as_rank, new_key(), function, *args)
        before = signal.signal(signal.SIGTERM, _exit)
        try:
            found: list[R] = job.results()
        except SystemExit:
            job.cancel()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        return found


def _as_rank(key: str, function: Callable[..., R], *args: object) -> R:
    """What each process runs. key: their shared secret, passed through a folder that only the caller can read."""
    from bigchem.launch.rendezvous.environment import rendezvous
    from bigchem.launch.rendezvous.process_group import finish, start

    os.environ[VARIABLE] = key
    try:
        result = function(start(rendezvous(os.environ, os.getpid())), *args)
        finish()
        return result
    except BaseException as error:  # submitit passes it to the caller once the other ranks no longer wait
        if (others := peers.current()) is not None:
            others.tell(f"{type(error).__name__}: {error}", 1)
        raise


def _exit(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)
