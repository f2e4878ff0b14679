"""Per-example metrics on several cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

R = TypeVar("R")
P = TypeVar("P")

SMALL = 1000
"""Fewer examples than this run in the calling process: starting a worker takes about half a second."""
_SLICE = 128
"""Examples per work item: few enough to balance slow molecules."""


def over_cores(
    function: Callable[[Sequence[R], Sequence[P]], NDArray[Any]],
    references: Sequence[R],
    predictions: Sequence[P],
    workers: int,
    small: int | None = None,
) -> NDArray[Any]:
    """function(references, predictions) -> [examples, ...], computed in slices by `workers` processes; in this process
    for fewer examples than `small` (None: SMALL).

    This process is one of the workers: while the others start, it takes unstarted slices from the end. The function and
    its arguments must be picklable. Processes are spawned, because the caller's threads (torch) do not survive a fork.
    """
    if workers <= 1 or len(references) < (SMALL if small is None else small):
        return function(references, predictions)
    starts = range(0, len(references), _SLICE)
    slices = [(references[start : start + _SLICE], predictions[start : start + _SLICE]) for start in starts]
    with ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *part) for part in slices]
        own = [function(*part) for part, future in zip(slices[::-1], futures[::-1], strict=True) if future.cancel()]
        # Futures start in order, so the workers' slices precede this process's.
        theirs = [future.result() for future in futures if not future.cancelled()]
    return np.concatenate([*theirs, *own[::-1]])
