"""Micro-batches on their way to the device.

`batch.to(device)` copies tensor by tensor from pageable memory: each copy waits until the device has finished what it
was given before, and the device then waits for the host. Here a micro-batch is one copy, from pinned memory and on a
stream of its own, for which only the device's next computation waits.
"""

from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor, cuda

from bigchem.model.packed_batch import PackedBatch

BUFFERS = 2
"""Pinned buffers: one is filled while the last copy may still read the other."""
ALIGNMENT = 128
"""Bytes: a cache line of the device."""


def feed(device: torch.device) -> Callable[[PackedBatch], PackedBatch]:
    """A function that takes a batch on the CPU, and returns it where a forward pass on the device can read it."""
    return (lambda batch: batch) if device.type == "cpu" else Feed(device).send


class Feed:
    """The route to a GPU. The tensors that it returns are views of one buffer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = cuda.Stream(device)
        self._pinned = cycle(_Pinned(pin_memory=device.type == "cuda") for _ in range(BUFFERS))

    def send(self, batch: PackedBatch) -> PackedBatch:
        """The batch on the device, for the current stream. Returns before it is there."""
        pinned, size = next(self._pinned), sum(_room(x) for x in batch.tensors())
        staging = pinned.reserve(size)
        for place, x in zip(_views(batch, staging).tensors(), batch.tensors(), strict=True):
            place.copy_(x)
        reader = cuda.current_stream(self._device)
        with cuda.stream(self._stream):
            sent = torch.empty(size, dtype=torch.uint8, device=self._device)
            sent.copy_(staging, non_blocking=True)
            pinned.copied.record(self._stream)
        reader.wait_event(pinned.copied)
        sent.record_stream(reader)  # torch must not hand out its memory again before the reader is done with it
        return _views(batch, sent)


class _Pinned:
    """A growing buffer, and the event that ends the last copy from it."""

    def __init__(self, *, pin_memory: bool) -> None:
        self._pin_memory = pin_memory
        self._memory = torch.empty(0, dtype=torch.uint8)
        self.copied = cuda.Event()

    def reserve(self, size: int) -> Tensor:
        """`size` bytes that nothing reads any more."""
        self.copied.synchronize()
        if len(self._memory) < size:
            self._memory = torch.empty(size + size // 4, dtype=torch.uint8, pin_memory=self._pin_memory)
        return self._memory[:size]


def _views(batch: PackedBatch, memory: Tensor) -> PackedBatch:
    """The batch with each tensor in its place in `memory` [bytes]."""
    typed = {dtype: memory.view(dtype) for dtype in (torch.int32, torch.int64)}
    end = 0

    def place(x: Tensor) -> Tensor:
        nonlocal end
        start, end = end, end + _room(x)
        return typed[x.dtype].as_strided(x.shape, x.stride(), start // x.itemsize)

    return batch.map(place)


def _room(x: Tensor) -> int:
    """Bytes from a tensor's place to the next one's."""
    return -(-x.nbytes // ALIGNMENT) * ALIGNMENT
