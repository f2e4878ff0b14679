"""A function on several processes of this machine, as ranks of a job: through submitit's local executor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def on_ranks(function: Callable[..., R], processes: int, timeout_min: float, *args: object, gpus: bool) -> list[R]:
    """function(*args) in each process, with the environment of a job's rank; results in rank order. gpus: one each."""
    import submitit

    with tempfile.TemporaryDirectory() as folder:
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(
            timeout_min=timeout_min, tasks_per_node=processes, gpus_per_node=processes if gpus else 0
        )
        found: list[R] = executor.submit(function, *args).results()
        return found
