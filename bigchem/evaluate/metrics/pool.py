"""Per-example metrics over several cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

R = TypeVar("R")
P = TypeVar("P")

SMALL = 1000
"""Fewer examples than this are done in the calling process: a worker's start costs about half a second."""
_SLICE = 128
"""Examples handed over at once: few enough that slow molecules even out."""


def over_cores(
    function: Callable[[Sequence[R], Sequence[P]], NDArray[Any]],
    references: Sequence[R],
    predictions: Sequence[P],
    workers: int,
    small: int | None = None,
) -> NDArray[Any]:
    """function(references, predictions) -> [examples, ...], computed in slices by `workers` processes; in this one for
    fewer examples than `small` (None: SMALL).

    This process is one of the workers: it begins while the others start, from the end, with slices that nobody has
    begun. The function and what it gets must be picklable. Processes are spawned: the caller may hold threads (torch)
    that do not survive a fork.
    """
    if workers <= 1 or len(references) < (SMALL if small is None else small):
        return function(references, predictions)
    starts = range(0, len(references), _SLICE)
    slices = [(references[start : start + _SLICE], predictions[start : start + _SLICE]) for start in starts]
    with ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *part) for part in slices]
        own = [function(*part) for part, future in zip(slices[::-1], futures[::-1], strict=True) if future.cancel()]
        # Futures are begun in their order, so the others' slices come before this process's.
        theirs = [future.result() for future in futures if not future.cancelled()]
    return np.concatenate([*theirs, *own[::-1]])
