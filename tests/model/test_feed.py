"""The route of micro-batches to a GPU, with streams and events stubbed: nothing here shows what a GPU does."""

import numpy as np
import pytest
import torch
from crossings import LateCuda
from small_models import V1_0, build, pack, sequences

pytest.importorskip("triton")

from bigchem.model.feed import Feed, feed
from bigchem.model.packed_batch import PackedBatch

CPU = torch.device("cpu")


def batches(count: int) -> list[PackedBatch]:
    """Planned for the triton backend; of growing sizes, so that pinned buffers grow."""
    model, random = build(V1_0, "triton"), np.random.default_rng(0)
    lengths = [random.integers(1, 90, (2, 3 + i)).tolist() for i in range(count)]
    return [model.plan(pack(sequences(n[0], 1), sequences(n[1], 2)), CPU) for n in lengths]


def test_batches_arrive_whole_when_every_copy_is_as_late_as_a_gpu_may_make_it() -> None:
    sent = batches(6)
    with LateCuda().installed() as cuda:
        route = Feed(CPU)
        with cuda:
            arrived = [route.send(batch) for batch in sent]
        cuda.compute.finish()
    for before, after in zip(sent, arrived, strict=True):
        assert after.source_lens is before.source_lens
        assert after.work.keys() == before.work.keys()
        for a, b in zip(before.tensors(), after.tensors(), strict=True):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype
            assert b.data_ptr() % 16 == 0  # what Triton compiles its kernels for
        assert len({x.untyped_storage().data_ptr() for x in after.tensors()}) == 1


def test_on_the_cpu_a_batch_stays_as_it_is() -> None:
    (only,) = batches(1)
    assert feed(CPU)(only) is only
