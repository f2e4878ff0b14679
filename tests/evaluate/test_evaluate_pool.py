"""Slices over processes: in order, and really elsewhere."""

import os

import numpy as np

from bigchem.evaluate import pool


def pid_and_pair(references, predictions):
    return np.array([[os.getpid(), *pair] for pair in zip(references, predictions, strict=True)])


def test_large_inputs_are_sliced_over_processes_in_order(monkeypatch):
    monkeypatch.setattr(pool, "SMALL", 10)
    table = pool.over_cores(pid_and_pair, list(range(23)), list(range(23, 46)), 2)
    assert table[:, 1:].tolist() == [[i, i + 23] for i in range(23)]
    assert os.getpid() not in table[:, 0]


def test_small_inputs_and_one_worker_stay_in_the_process():
    for size, workers in ((pool.SMALL - 1, 4), (pool.SMALL, 1)):
        table = pool.over_cores(pid_and_pair, [0] * size, [0] * size, workers)
        assert set(table[:, 0]) == {os.getpid()}
