"""Slices over processes: results are in order, and some come from other processes."""

import os
import time

import numpy as np

from bigchem.evaluate.metrics import pool


def pid_and_pair(references, predictions):
    return np.array([[os.getpid(), *pair] for pair in zip(references, predictions, strict=True)])


def slow(references, predictions):
    time.sleep(0.3)
    return pid_and_pair(references, predictions)


def test_large_inputs_are_sliced_over_processes_in_order(monkeypatch):
    monkeypatch.setattr(pool, "SMALL", 10)
    monkeypatch.setattr(pool, "_SLICE", 3)
    table = pool.over_cores(slow, list(range(23)), list(range(23, 46)), 2)
    assert table[:, 1:].tolist() == [[i, i + 23] for i in range(23)]
    assert len(set(table[:, 0])) == 2
    assert table[0, 0] != os.getpid() == table[-1, 0]


def test_small_inputs_and_one_worker_stay_in_the_process():
    for size, workers in ((pool.SMALL - 1, 4), (pool.SMALL, 1)):
        table = pool.over_cores(pid_and_pair, [0] * size, [0] * size, workers)
        assert set(table[:, 0]) == {os.getpid()}
