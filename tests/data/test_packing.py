import numpy as np

from bigchem.data.packing import pack


def test_examples_follow_each_other_without_padding() -> None:
    batch = pack([np.array([5, 6, 1]), np.array([7, 1])], [np.array([8, 1]), np.array([9])], np.array([1, 0]))
    assert batch.source_ids.tolist() == [5, 6, 1, 7, 1]
    assert batch.target_ids.tolist() == [8, 1, 9]
    assert (batch.source_cu_seqlens.tolist(), batch.target_cu_seqlens.tolist()) == ([0, 3, 5], [0, 2, 3])
    assert (batch.source_lens.tolist(), batch.target_lens.tolist()) == ([3, 2], [2, 1])
    assert batch.task_ids.tolist() == [1, 0]


def test_a_rank_without_examples_gets_a_batch_without_labels() -> None:
    batch = pack([], [], np.zeros(0, np.int64))
    assert batch.source_cu_seqlens.tolist() == [0, 1]
    assert batch.target_ids.tolist() == [-100]
