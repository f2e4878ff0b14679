"""DeepSpeed's branches for CUDA, run on the CPU: streams and events are stand-ins, and the host's waits are counted."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from typing import Any, ClassVar

import torch
from deepspeed.accelerator import get_accelerator


class Stream:
    """A stand-in that does all at once, and counts who waits for it."""

    waits: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def synchronize(self) -> None:
        count(f"{type(self).__name__.lower()} of")

    def wait_stream(self, other: Stream) -> None: ...

    def wait_event(self, event: Event) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *args: object) -> None: ...


class Event(Stream):
    """One that has always happened."""

    def record(self, *args: Any) -> None: ...

    def wait(self, *args: Any) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        return 0.0


def count(kind: str) -> None:
    """Counts a wait, with DeepSpeed's function that waits."""
    frames = [f for f in traceback.extract_stack() if "/deepspeed/" in f.filename and "accelerator" not in f.filename]
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]} {frames[-1].name}" if frames else "elsewhere"
    Stream.waits[f"{kind} {where}"] += 1


def pretend() -> Counter[str]:
    """Switches DeepSpeed's branches for CUDA on in this process, for good. The result counts the host's waits."""
    accelerator = type(get_accelerator())
    for name in (
        "is_synchronized_device",
        "resolves_data_dependency",
        "handles_memory_backpressure",
        "use_host_timers",
    ):
        setattr(accelerator, name, lambda self: False)
    current = Stream()
    stand_ins: dict[str, Any] = {
        "synchronize": lambda self, *args: count("device of"),
        "Stream": property(lambda self: Stream),
        "Event": property(lambda self: Event),
        "stream": lambda self, stream: contextlib.nullcontext(),
        "current_stream": lambda self, *args: current,
        "default_stream": lambda self, *args: current,
    }
    for name, stand_in in stand_ins.items():
        setattr(accelerator, name, stand_in)
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign,assignment]
    return Stream.waits
