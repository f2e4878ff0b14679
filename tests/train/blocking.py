"""A stand-in for NCCL on a CPU: gloo, whose collectives and whose destroy_process_group block for ever as NCCL's do.

A collective operation that a peer never joins, or leaves by dying, never ends, and no signal interrupts it. Taking the
group down waits for all ranks. What it cannot show is anything about a GPU's streams, or NCCL's own threads.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

COLLECTIVES = (
    *("allgather", "allgather_coalesced", "allreduce", "allreduce_coalesced", "alltoall", "alltoall_base", "barrier"),
    *("broadcast", "gather", "recv", "reduce", "reduce_scatter", "scatter", "send", "_allgather_base"),
    *("_reduce_scatter_base", "allgather_into_tensor_coalesced", "reduce_scatter_tensor_coalesced"),
)
NEWER = {
    "all_gather_single": "_allgather_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "all_to_all_single": "alltoall_base",
    "reduce_scatter_single": "_reduce_scatter_base",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
}
"""What torch 2.13 calls on a group, by what gloo still calls it."""


def block() -> NoReturn:
    """Never returns, lets other threads run, and is not interrupted by signals: a wait inside of C."""
    lock = ctypes.create_string_buffer(256)
    pthread = ctypes.CDLL(None)
    while True:
        pthread.pthread_mutex_lock(lock)  # the second time it waits for itself


class Blocking(dist.ProcessGroup):
    """Gloo, but for its ends."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._store, self._ranks = store, size
        self._gloo = c10d.ProcessGroupGloo(dist.PrefixStore("gloo", store), rank, size, timeout=timedelta(days=1))

    def getBackendName(self) -> str:  # noqa: N802 - torch's
        return "blocking"

    @property
    def group_name(self) -> str:
        return c10d._world.pg_names[self]

    def shutdown(self) -> None:
        """As ncclCommAbort and ncclCommDestroy: a peer that does not come is waited for, with the store or without."""
        try:
            self._store.add("shutdown", 1)
            while self._store.add("shutdown", 0) < self._ranks:
                time.sleep(0.01)
        except dist.DistError:
            block()


class Work(c10d.Work):
    """An operation of gloo's that does not say that a peer is gone."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = inner

    def wait(self, *timeout: Any) -> bool:
        try:
            return bool(self._inner.wait())
        except RuntimeError:
            block()


def _collective(name: str) -> Callable[..., Work]:
    def operation(self: Blocking, *arguments: Any, **more: Any) -> Work:
        try:
            return Work(getattr(self._gloo, name)(*arguments, **more))
        except RuntimeError:
            block()

    return operation


for _name, _inner in {**{name: name for name in COLLECTIVES}, **NEWER}.items():
    setattr(Blocking, _name, _collective(_inner))


def install() -> None:
    """In this process, every group of gloo is a blocking one."""
    dist.Backend.register_backend("blocking", Blocking, devices=["cpu"])
    original = dist.init_process_group

    def init_process_group(backend: str, *arguments: Any, **more: Any) -> None:
        original("blocking" if backend == "gloo" else backend, *arguments, **more)

    dist.init_process_group = init_process_group
