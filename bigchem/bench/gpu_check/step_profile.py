"""A training step of the packed T5 under torch's profiler: how busy the device is, what the host asks of it."""

import gzip
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from bigchem.bench.common import OutOfTimeError, at_most, clock, release
from bigchem.bench.gpu_check.work import Work
from bigchem.bench.model.contestants import Ours, Setting, examples, reference
from bigchem.bench.model.mix import Rows, lengths_of_tasks, mixed
from bigchem.model.presets import shape

STEP = "bigchem step"
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""Beginnings of names; the driver's and the runtime's calls have variants (ExC, Ex)."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")
TOP = 12


@dataclass(frozen=True)
class Span:
    """An event of a trace: its category, name, first and last microsecond."""

    category: str
    name: str
    begin: float
    end: float


def spans(trace: dict[str, Any]) -> list[Span]:
    """The complete events of a Chrome trace."""
    return [
        Span(event.get("cat", ""), event["name"], float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in trace["traceEvents"]
        if event.get("ph") == "X" and "dur" in event
    ]


def busy(events: Iterable[Span]) -> float:
    """Microseconds in which at least one of the events runs."""
    total, reached = 0.0, float("-inf")
    for event in sorted(events, key=lambda span: span.begin):
        total += max(0.0, event.end - max(event.begin, reached))
        reached = max(reached, event.end)
    return total


def summary(found: list[Span]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The step's row, and those of the kernels that take longest. Counts are of the host's calls inside the step."""
    step = next(span for span in found if span.name == STEP and span.category in ("user_annotation", "cpu_op"))
    device = [span for span in found if span.category in ON_DEVICE and span.begin >= step.begin]
    host = [span for span in found if step.begin <= span.begin < step.end and span.category.startswith("cuda_")]
    last = max([step.end, *(span.end for span in device)])
    wall = last - step.begin
    pageable = [span for span in device if "Pageable" in span.name and "DtoD" not in span.name]
    row = {
        "ms": wall / 1e3,
        "host ms": (step.end - step.begin) / 1e3,
        "device busy %": 100 * busy(device) / wall,
        "launches": sum(span.name.startswith(LAUNCHES) for span in host),
        "kernels": sum(span.category == "kernel" for span in device),
        "synchronisations": sum(span.name.startswith(WAITS) for span in host),
        "copies": sum(span.category == "gpu_memcpy" for span in device),
        "pageable copies": len(pageable),
    }
    kernels: dict[str, list[float]] = defaultdict(list)
    for span in device:
        kernels[span.name[:80]].append(span.end - span.begin)
    longest = sorted(kernels.items(), key=lambda pair: -sum(pair[1]))[:TOP]
    return row, [
        {"kernel": name, "calls": len(times), "kernel's ms": sum(times) / 1e3, "% of the step": 100 * sum(times) / wall}
        for name, times in longest
    ]


def profile(work: Work) -> None:
    """One T5-base step, copies and AdamW included, at two micro-batch sizes; compiled too if time is left."""
    preset, sizes = ("sweep-0.2m", (600, 900)) if work.dry_run else ("t5-base", (16384, 32768))
    setting = Setting(preset, shape(preset), 0.1, work.device, work.dtype)
    weights = reference(setting, "eager").state_dict()
    lengths = lengths_of_tasks(None)
    for compiled in (False, True):
        if compiled and (work.dry_run or work.deadline.left < 20):
            work.skip("the compiled step", "a dry run" if work.dry_run else "no time left")
            break
        try:
            with at_most(work.deadline.left):
                ours = Ours(setting, weights, "auto", compiled=compiled)
                optimizer = torch.optim.AdamW(ours.model.parameters(), lr=1e-4, fused=True)
                for tokens in sizes:
                    row, kernels = summary(traced(ours, optimizer, mixed(lengths, tokens, seed=0)))
                    key = {"model": preset, "tokens": tokens, "compiled": compiled}
                    work.report.rows += [{**key, **line} for line in (row, *kernels)]
                    work.save()
        except OutOfTimeError as failed:
            work.skip(f"{preset}{', compiled' if compiled else ''}", failed)
        release(work.device)


def traced(ours: Ours, optimizer: torch.optim.Optimizer, rows: Rows) -> list[Span]:
    """The events of a step of these rows, after two without a profiler."""
    drawn = examples(rows, ours.model.shape.vocab_size)

    def step() -> None:
        ours.loss(ours.batch(drawn)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    clock()
    with torch_profile(activities=activities) as running:
        with record_function(STEP):
            step()
        clock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        running.export_chrome_trace(str(path))
        with gzip.open(path, "rt") as file:
            return spans(json.load(file))
