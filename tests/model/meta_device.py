"""The model as on a GPU, on the meta device: shapes alone, and no kernel runs.

A stub stands for every Triton launch and counts it. Of torch's operations those are counted that launch a kernel on a
GPU: not views, nor what only allocates. Norms, dropout, activations and the loss take the path of CUDA.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import interpreter

from bigchem.data.packing import pack
from bigchem.model import functional
from bigchem.model.attention import KINDS
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape
from bigchem.model.t5 import PackedT5

META = torch.device("meta")
LAUNCH_NOTHING = {
    *("alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh", "new_empty", "permute", "select"),
    *("slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view"),
}


class Launches(TorchDispatchMode):
    """Counts launches by name: of torch's operations, and with the prefix "triton: " of our kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        monkeypatch.setattr(interpreter.InterpretedFunction, "run", self._launch)
        monkeypatch.setattr(functional, "KERNEL_DEVICES", {"meta"})

    def _launch(self, *args: Any, **options: Any) -> None:
        self.count["triton"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        name = func.overloadpacket.__name__
        if any(x.is_meta for x in tensors) and name not in LAUNCH_NOTHING:
            self.count[name] += 1
        return result


def model(shape: Shape, dropout: float = 0.1, device: torch.device = META, **options: int) -> PackedT5:
    """A bf16 model, on the meta device without memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            return PackedT5(shape, dropout, dict.fromkeys(KINDS, "triton"), **options).train()
    finally:
        torch.set_default_dtype(before)


def batch(of: PackedT5, source: np.ndarray, target: np.ndarray, device: torch.device = META) -> PackedBatch:
    """Examples of these lengths, with what a model plans from them."""
    ids = [np.ones(n) for n in (*source, *target)]
    packed = pack(ids[: len(source)], ids[len(source) :], np.zeros(len(source), dtype=np.int64))
    return of.plan(packed, device).to(device)
