"""Shared by the benchmarks: figures with targets, tables, timers, time limits, and a small corpus."""

from __future__ import annotations

import gc
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from bigchem.base import environment
from bigchem.base.errors import UserError
from bigchem.base.installed.packages import version_of
from bigchem.base.progress import Progress, tables
from bigchem.model.linear import matmul_t


@dataclass(frozen=True)
class Figure:
    """A line of the table. asked: the project's target, None for none; at_least: its direction."""

    name: str
    value: float
    unit: str
    asked: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the target is met."""
        if self.asked is None:
            return None
        return self.value >= self.asked if self.at_least else self.value <= self.asked

    def as_json(self) -> dict[str, Any]:
        """The fields, and whether the target is met."""
        return {**asdict(self), "holds": self.holds}


def print_figures(figures: list[Figure], as_json: bool = False) -> None:
    """A table with one line per figure, targets met: yes or NO; or JSON."""
    if as_json:
        print(json.dumps([figure.as_json() for figure in figures], indent=1))
        return
    table = Table("what", "figure", "unit", "target", "met")
    for figure in figures:
        target = "" if figure.asked is None else f"{'>=' if figure.at_least else '<='} {figure.asked:g}"
        holds = "" if figure.holds is None else "yes" if figure.holds else "NO"
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, target, holds)
    tables().print(table)


@dataclass
class Report:
    """Results of a benchmark of the model. rows: one dict per line of the wide table, with equal keys."""

    machine: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def skip(self, what: str, why: object, progress: Progress) -> None:
        """Records what could not run, with the first line of the reason."""
        line = f"{what}: {(str(why).strip().splitlines() or [type(why).__name__])[0][:200]}"
        if line not in self.skipped:
            self.skipped.append(line)
            progress.say(f"skipped {line}")

    def as_json(self) -> dict[str, Any]:
        """Everything, each figure with whether its target is met."""
        return {**asdict(self), "figures": [figure.as_json() for figure in self.figures]}

    def show(self, as_json: bool) -> None:
        """Prints everything, as tables or as JSON."""
        if as_json:
            print(json.dumps(self.as_json(), indent=1))
            return
        print(", ".join(f"{name} {value}" for name, value in self.machine.items()))
        if self.rows:
            table = Table(*self.rows[0])
            for row in self.rows:
                table.add_row(*(cell(value) for value in row.values()))
            tables().print(table)
        if self.figures:
            print_figures(self.figures)
        for line in self.skipped:
            print(f"skipped: {line}")


def cell(value: object) -> str:
    """A value of a row: numbers to three digits, or whole with thousands separated."""
    if value is None:
        return ""
    return (
        f"{value:,.0f}"
        if isinstance(value, float) and abs(value) >= 1000
        else (f"{value:.3g}" if isinstance(value, float) else str(value))
    )


def machine(device: torch.device) -> dict[str, str]:
    """Date, device and versions, for the heading."""
    cpu = f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    head = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu,
        "python": platform.python_version(),
    }
    packages = ("torch", "triton", "transformers", "flash-attn", "liger-kernel")
    return {**head, **{package: version_of(package) or "not installed" for package in packages}}


def median_s(work: Callable[[], Any], repeat: int) -> float:
    """Median seconds per call."""
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


class OutOfTimeError(Exception):
    """A contestant exceeded its time limit."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError inside the block after `seconds`: compilers have no time limit."""

    def stop(*_: object) -> None:
        raise OutOfTimeError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Deadline:
    """When the whole benchmark must end."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Remaining seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def share(self, parts: float) -> Deadline:
        """The deadline of the next of `parts` equal parts of the remaining time."""
        return Deadline(self.left / max(1.0, parts))


def pick_device(requested: str | None) -> torch.device:
    """The requested device; by default CUDA if available. UserError if the requested one is not."""
    if requested not in (None, "cpu", "cuda"):
        raise UserError(f"unknown device {requested!r}", "--device", "known: cpu, cuda")
    available = environment.visible_gpus() > 0
    if requested == "cuda" and not available:
        raise UserError("no CUDA device here", "--device", "--device cpu")
    return torch.device(requested or ("cuda" if available else "cpu"))


def clock() -> float:
    """Seconds, after waiting for all CUDA work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_flops(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of a large matrix product in this dtype: the reference for a training step. size: of its sides."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        begun = clock()
        matmul_t(a, b)
        times.append(clock() - begun)
    return 2 * size**3 / min(times)


def small_corpus(folder: Path, rows: int = 600) -> Path:
    """Builds rows of the embedded corpus in a folder; returns the folder."""
    from bigchem.data.build.pipeline import build
    from bigchem.data.build.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig

    sources = (SourceConfig(format="synthetic", split="train", rows=rows, seed=1),)
    build(BuildConfig(sources=sources), folder, Progress(quiet=True), workers=1)
    return folder


def release(device: torch.device) -> None:
    """Frees unused memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
