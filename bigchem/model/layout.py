"""Which packed rows attend to which."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Layout:
    """Which packed rows attend to which: sequence i's queries are rows cu_seqlens_q[i]..cu_seqlens_q[i+1].

    Built once per batch and kind of attention; all layers share it, and what backends derive from it. hashes: of the
    queries' tokens, int32 [Tq], for dropout.
    """

    def __init__(self, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_q: int, max_k: int, hashes: Tensor) -> None:
        self.cu_seqlens_q, self.cu_seqlens_k = cu_seqlens_q, cu_seqlens_k
        self.max_q, self.max_k, self.hashes = max_q, max_k, hashes
        self.work: list[Tensor] | None = None
        """The Triton kernels' work lists, from `prepare`; work_for: their head dimension and dtype."""
        self.work_for: tuple[int, torch.dtype] | None = None
        self._derived: dict[Hashable, object] = {}

    @cached_property
    def host(self) -> tuple[np.ndarray, np.ndarray]:
        """Both offsets as numpy arrays. On a GPU this waits for the device; only `torch` and `eager` need it."""
        return self.cu_seqlens_q.cpu().numpy().astype(np.int64), self.cu_seqlens_k.cpu().numpy().astype(np.int64)

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, called once per layout and key."""
        if key not in self._derived:
            self._derived[key] = make()
        return cast(T, self._derived[key])
