"""What crosses between host and GPU in a step, counted on the meta device; kernels, DeepSpeed, streams and events are
stubs."""

import numpy as np
import pytest
import torch
from crossings import META, Crossings, LateCuda
from small_models import V1_0, V1_1

pytest.importorskip("triton")

import meta_device

from bigchem.data.loader import LoadedStep
from bigchem.data.order.steps import Step
from bigchem.data.packing import pack
from bigchem.model.feed import feed
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape
from bigchem.model.t5 import Loss, PackedT5
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.engine import Engine, StepLoss


def batch(random: np.random.Generator, examples: int) -> PackedBatch:
    sides = [[random.integers(2, 50, n) for n in random.integers(1, 90, examples)] for _ in range(2)]
    return pack(sides[0], sides[1], np.arange(examples) % 5)


class Bare:
    """A stub of DeepSpeed's engine: forward and backward of the bare model."""

    def __init__(self, module: PackedT5) -> None:
        self.module, self.train = module, module.train

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        pass

    def __call__(self, *args: object) -> Loss:
        return self.module(*args)

    def backward(self, loss: torch.Tensor, **_: object) -> None:
        loss.backward()


class OnMeta(Engine):
    """A training engine on the meta device. reduced: how often the step's totals were summed over ranks and read."""

    def __init__(self, module: PackedT5) -> None:
        self._engine, self.device, self.tasks = Bare(module), META, ("a", "b", "c", "d", "e")
        self.rank, self.world_size, self.reduced = 0, 2, 0
        self._send = feed(META)
        self._files = BigchemCheckpointEngine([])

    def _reduce(self, totals: torch.Tensor) -> StepLoss:
        self.reduced += 1
        return StepLoss(totals, totals, self.tasks)


@pytest.mark.parametrize(("shape", "checkpointed"), [(V1_0, False), (V1_1, True)], ids=["v1.0", "v1.1 checkpointed"])
def test_one_copy_a_micro_batch_and_no_read_between_the_first_forward_and_the_reduction(
    shape: Shape, checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta_device.Launches(monkeypatch)  # stubs the kernels, and takes the paths of CUDA
    random = np.random.default_rng(0)
    micro_batches = [batch(random, n) for n in (3, 12, 1)]
    step = Step(0, 0, *np.zeros((3, 2), dtype=np.int64), np.ones((2, 2), dtype=np.int64))
    with LateCuda().installed():
        engine = OnMeta(meta_device.model(shape, num_tasks=5, checkpoint_activations=checkpointed))
        engine.forward_backward(LoadedStep(step, micro_batches), 0)  # fills what is cached on the device
        with Crossings() as found:
            engine.forward_backward(LoadedStep(step, micro_batches), 0)
    assert all(parameter.grad is not None for parameter in engine.module.parameters())
    assert found.reads == []
    assert len(found.copies) == len(micro_batches), found.copies
    assert all("feed.py" in copy for copy in found.copies)
    assert engine.reduced == 2
