"""The exact order of a run: a release that changes one of these would train resumed runs on other examples.

The numbers were computed by the code that they test, on x86-64. They prove that no refactoring, numpy version or
platform changes them unnoticed.
"""

from __future__ import annotations

import numpy as np

from bigchem.data.order.examples import Windowed, permutation_key, permute
from bigchem.data.order.mixture import Mixture, fair_schedule, quotas
from bigchem.data.order.span_corruption import Spans, row_keys
from bigchem.data.order.steps import deal


def test_permutations() -> None:
    key = permutation_key(7, 1, 0)
    assert permute(np.arange(12), 12, key).tolist() == [7, 9, 2, 0, 11, 6, 5, 4, 3, 1, 10, 8]
    large = permute(np.arange(5) + 10**9, 3 * 10**9, key).tolist()
    assert large == [540167775, 2574353420, 32113145, 1162562871, 202878374]


def test_two_level_permutations() -> None:
    windowed = Windowed(7, 1, np.array([4, 0, 3, 5, 2]), 2)
    first, second = (windowed.at(np.arange(14), epoch).tolist() for epoch in (0, 1))
    assert first == [10, 9, 0, 2, 11, 8, 1, 3, 7, 4, 12, 13, 6, 5]
    assert second == [11, 7, 2, 9, 10, 8, 3, 0, 1, 5, 4, 6, 13, 12]


def test_mixtures() -> None:
    assert fair_schedule(np.array([3, 7, 2])).tolist() == [1, 0, 1, 2, 1, 1, 0, 1, 1, 2, 0, 1]
    assert quotas([2**0.5, 1.0, 3.0]).tolist() == [17118, 12105, 36313]
    slots, nths = Mixture({0: 1.0, 4: 2.0}, {0: 3, 4: 5}, 1).draws(0, 99)
    assert slots.tolist() == [1, 0, 1, 1, 0, 1, 1, 0]
    assert nths.tolist() == [0, 0, 1, 2, 1, 3, 4, 2]


def test_span_corruption() -> None:
    keys = row_keys(7, 5, np.array([0, 1, 10**9]), np.array([0, 3, 0]))
    assert keys.tolist() == [57655128866600062, 9165271030967609034, 7916292481416539990]
    spans = Spans(0.3, 2.0, np.array([99, 98, 97], dtype=np.int32))
    ids = np.array([*range(10, 22), 1, *range(30, 38), 1], dtype=np.int32)
    source, target = spans.corrupt(ids, np.array([13, 9]), keys[:2])
    assert source.tolist() == [10, 11, 99, 13, 14, 15, 98, 19, 20, 21, 1, 30, 31, 32, 33, 99, 36, 37, 1]
    assert target.tolist() == [99, 12, 98, 16, 17, 18, 1, 99, 34, 35, 1]
    starts = [np.array([int(c) for c in row], dtype=bool) for row in ("101100111011", "11011101")]
    source, target = spans.corrupt(ids, np.array([13, 9]), keys[:2], starts)
    assert source.tolist() == [10, 11, 99, 13, 14, 15, 16, 17, 98, 21, 1, 30, 31, 32, 99, 35, 36, 37, 1]
    assert target.tolist() == [99, 12, 98, 18, 19, 20, 1, 99, 33, 34, 1]


def test_deals() -> None:
    tokens = np.array([50, 40, 40, 30, 90, 20, 20, 10, 60, 70])
    tight = deal(tokens, 2, 120, 460, cost=tokens**2)
    assert tight.grad_accum_steps == 2
    assert tight.micro_batch.tolist() == [3, 3, 2, 1, 0, 0, 3, 2, 2, 1]
    assert deal(tokens, 3, 150, 440, cost=tokens**2).micro_batch.tolist() == [2, 1, 0, 2, 0, 1, 0, 1, 2, 1]
