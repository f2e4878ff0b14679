"""The meta device in a GPU's place: counts what would cross between it and the host, or wait for it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
COPIES = {"aten._to_copy.default", "aten.copy_.default"}
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Of operations whose result, or its shape, the host must read from the device: `item`, `nonzero`, `unique`, ..."""


class Crossings(TorchDispatchMode):
    """While active, lists copies between host and device, and reads of device tensors, with their place in bigchem.

    Tensors of both in one operation count as a copy, but for scalars on the host, which are arguments of kernels; torch
    refuses others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(x.is_meta for x in tensors(args, kwargs)) and reads(func, args, kwargs or {}):
            self.reads.append(place(func))
        out = func(*args, **(kwargs or {}))
        on = {x.is_meta for x in tensors(args, kwargs, out) if x.is_meta or x.dim() or str(func) in COPIES}
        if on == {True, False}:
            self.copies.append(place(func))
        return out


def reads(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the host reads a value from the device, to know the result or its size."""
    if func.name().startswith("aten::index"):
        return any(x.dtype in (torch.bool, torch.uint8) for x in tensors(args[1]))  # masks; places need no read
    sized = kwargs.get("output_size") is not None  # repeat_interleave was told what it would read
    return bool(READS & set(func.tags)) and not sized


def tensors(*values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def place(func: object) -> str:
    """The operation, and the line of bigchem that called it."""
    ours = [frame for frame in traceback.extract_stack() if "/bigchem/" in frame.filename]
    return f"{func} at {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else str(func)


class Stream:
    """A stub of torch.cuda.Stream on which copies that need not block are done as late as possible: when the host waits
    for an event behind them."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def finish(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def wait_event(self, event: Event) -> None:
        self.waiting.append(event.synchronize)


class Event:
    """A stub of torch.cuda.Event."""

    recorded: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.recorded = stream

    def synchronize(self) -> None:
        if self.recorded is not None:
            self.recorded.finish()


class LateCuda(TorchDispatchMode):
    """A stub of torch.cuda for `bigchem.model.feed`. While active, copies on its side stream are late."""

    Event = Event
    Stream = staticmethod(lambda device: Stream())

    def __init__(self) -> None:
        super().__init__()
        self.compute, self.active = Stream(), None

    def current_stream(self, device: torch.device) -> Stream:
        return self.compute

    @contextmanager
    def stream(self, side: Stream) -> Iterator[None]:
        self.active = side
        yield
        self.active = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and self.active is not None and args[-1] is True:
            self.active.waiting.append(lambda: func(*args))
            return args[0]
        return func(*args, **(kwargs or {}))

    @contextmanager
    def installed(self) -> Iterator[LateCuda]:
        """In the place of torch.cuda in feed.py."""
        from bigchem.model import feed

        with mock.patch.object(feed, "cuda", self), mock.patch.object(Tensor, "record_stream", create=True):
            yield self
