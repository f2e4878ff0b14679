"""What a stage gets: its device, its time, and its report, which is printed and saved as it grows."""

import json
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import multiprocessing

from bigchem.base import atomic
from bigchem.base.progress import Progress
from bigchem.bench.common import Deadline, Report, cell


@dataclass
class Work:
    """A stage's work. dry_run: on the CPU, with tiny sizes."""

    device: torch.device
    dry_run: bool
    deadline: Deadline
    report: Report
    out: Path
    progress: Progress = field(default_factory=Progress)
    _rows: int = 0
    _figures: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Of the measured work."""
        return torch.float32 if self.dry_run else torch.bfloat16

    def skip(self, what: str, why: object) -> None:
        """Records what could not run."""
        self.report.skip(what, why, self.progress)

    def save(self) -> None:
        """Prints what is new in the report, and writes all of it."""
        for row in self.report.rows[self._rows :]:
            print(", ".join(f"{name} {cell(value)}" for name, value in row.items() if value is not None), flush=True)
        for figure in self.report.figures[self._figures :]:
            sign = ">=" if figure.at_least else "<="
            target = "" if figure.asked is None else f" (target {sign} {figure.asked:g}: {figure.holds})"
            print(f"{figure.name}: {figure.value:.4g} {figure.unit}{target}", flush=True)
        self._rows, self._figures = len(self.report.rows), len(self.report.figures)
        atomic.write_atomically(self.out, json.dumps(self.report.as_json()))


def pool(work: Work) -> Executor:
    """Workers that compile kernels side by side into Triton's cache: processes on a GPU, else one thread."""
    if work.device.type != "cuda":
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(min(12, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn"))


def end_workers() -> None:
    """Ends what a pool has started and still computes."""
    for worker in (workers := multiprocessing.active_children()):
        worker.kill()
    for worker in workers:
        worker.join(2)
