"""A stand-in for NCCL on a CPU: gloo, with collectives and destroy_process_group that block indefinitely as NCCL's do.

A collective operation never ends if a peer never joins it or dies in it, and no signal interrupts it. Destroying the
group waits for all ranks. It cannot show anything about a GPU's streams or NCCL's own threads.
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
"""torch 2.13's method names on a group, to gloo's older ones."""


def block() -> NoReturn:
    """Never returns, lets other threads run, ignores signals: a wait inside C."""
    lock = ctypes.create_string_buffer(256)
    pthread = ctypes.CDLL(None)
    while True:
        pthread.pthread_mutex_lock(lock)  # the second call deadlocks


class Blocking(dist.ProcessGroup):
    """Gloo, except for how operations end."""

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
        """Waits for absent peers, with or without the store, like ncclCommAbort and ncclCommDestroy."""
        try:
            self._store.add("shutdown", 1)
            while self._store.add("shutdown", 0) < self._ranks:
                time.sleep(0.01)
        except dist.DistError:
            block()


class Work(c10d.Work):
    """A gloo operation that does not report a lost peer."""

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
    """Makes every gloo group of this process a blocking one."""
    dist.Backend.register_backend("blocking", Blocking, devices=["cpu"])
    original = dist.init_process_group

    def init_process_group(backend: str, *arguments: Any, **more: Any) -> None:
        original("blocking" if backend == "gloo" else backend, *arguments, **more)

    dist.init_process_group = init_process_group
