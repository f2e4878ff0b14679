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
"""Fewer examples than this are done in the calling process: a worker's start costs about a second."""


def over_cores(
    function: Callable[[Sequence[R], Sequence[P]], NDArray[Any]],
    references: Sequence[R],
    predictions: Sequence[P],
    workers: int,
    small: int | None = None,
) -> NDArray[Any]:
    """function(references, predictions) -> [examples, ...], computed in slices by `workers` processes; in this one for
    fewer examples than `small` (None: SMALL).

    The function and what it gets must be picklable. Processes are spawned: the caller may hold threads (torch) that
    do not survive a fork.
    """
    if workers <= 1 or len(references) < (SMALL if small is None else small):
        return function(references, predictions)
    size = -(-len(references) // (4 * workers))  # four slices a worker even out slow molecules
    starts = range(0, len(references), size)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = pool.map(
            function,
            [references[start : start + size] for start in starts],
            [predictions[start : start + size] for start in starts],
        )
        return np.concatenate(list(parts))
