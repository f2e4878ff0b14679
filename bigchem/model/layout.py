"""Which packed rows attend to which."""

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from bigchem.model.dropout import token_hashes

T = TypeVar("T")


def cu_seqlens(lengths: np.ndarray) -> Tensor:
    """int32 [B + 1] on the host: sequence i of packed rows is rows cu_seqlens[i]..cu_seqlens[i + 1]."""
    return torch.from_numpy(_offsets(lengths).astype(np.int32))


class Layout:
    """Which packed rows attend to which: sequence i's queries are rows cu_seqlens_q[i]..cu_seqlens_q[i+1].

    Built once per batch and kind of attention; all layers share it, and what backends derive from it. lengths_q and
    lengths_k [B]: the same on the host, so that nobody waits for a device to learn them. hashes: of the queries'
    tokens, int32 [Tq], for dropout.
    """

    def __init__(
        self,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        lengths_q: np.ndarray,
        lengths_k: np.ndarray,
        hashes: Tensor,
    ) -> None:
        self.cu_seqlens_q, self.cu_seqlens_k, self.hashes = cu_seqlens_q, cu_seqlens_k, hashes
        self.lengths_q, self.lengths_k = lengths_q, lengths_k
        self.max_q, self.max_k = int(lengths_q.max(initial=0)), int(lengths_k.max(initial=0))
        self.work: Sequence[Tensor] = ()
        """What the backend of this attention plans from the lengths, on the device; work_for: head dimension and dtype
        that it is for, None if nothing was planned."""
        self.work_for: tuple[int, torch.dtype] | None = None
        self.columns: Tensor | None = None
        """Dropout's factors of keys, which the Triton kernels read."""
        self._derived: dict[Hashable, object] = {}
        self._table: tuple[Tensor, bool, object] | None = None

    @classmethod
    def of(
        cls,
        lengths_q: Sequence[int] | np.ndarray,
        lengths_k: Sequence[int] | np.ndarray,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The layout of these lengths on a device, for a step's first examples."""
        lengths_q, lengths_k = (np.asarray(lengths, dtype=np.int64) for lengths in (lengths_q, lengths_k))
        cu_q, cu_k = (cu_seqlens(lengths).to(device) for lengths in (lengths_q, lengths_k))
        hashes = torch.from_numpy(token_hashes(np.arange(len(lengths_q)), lengths_q))
        return cls(cu_q, cu_k, lengths_q, lengths_k, hashes.to(device))

    @cached_property
    def host(self) -> tuple[np.ndarray, np.ndarray]:
        """Both cu_seqlens as int64 numpy arrays."""
        return _offsets(self.lengths_q), _offsets(self.lengths_k)

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, called once per layout and key."""
        if key not in self._derived:
            self._derived[key] = make()
        return cast(T, self._derived[key])

    def table(self, bias: Tensor, causal: bool, make: Callable[[Tensor, bool], T]) -> T:
        """`make` of the stack's bias, called once for all layers. Keeps the bias: another could get its address."""
        if self._table is None or self._table[0] is not bias or self._table[1] != causal:
            self._table = bias, causal, make(bias, causal)
        return cast(T, self._table[2])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
