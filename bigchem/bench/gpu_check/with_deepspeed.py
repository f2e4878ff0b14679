"""Part 2: the planner's memory against DeepSpeed's on one rank, offload, and a checkpoint."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bigchem.bench.common import Figure
from bigchem.bench.gpu_check.work import Work


@dataclass(frozen=True)
class Planned:
    """A model, a shipped DeepSpeed file, and micro-batch sizes in tokens."""

    model: str
    ds_config: str
    sizes: tuple[int, ...]


ON_DEVICE = (
    Planned("t5-base", "zero2", (4096, 16384)),
    Planned("t5-small", "zero2", (16384,)),
    Planned("t5-large", "zero2", (16384,)),
    Planned("t5-base", "zero3", (16384,)),
    Planned("t5-base", "zero1", (16384,)),
    Planned("t5-large", "zero3", (16384,)),
)
OFFLOADED = (Planned("t5-base", "zero2_offload", (8192,)), Planned("t5-base", "zero3_offload", (8192,)))
COMPILE = "from bigchem.launch.rendezvous.extensions import load_cpu_adam; load_cpu_adam()"
WITHIN = 10.0
"""Largest acceptable difference of the planned from the measured peak, in per cent."""


def zero(work: Work) -> None:
    """States, peak memory and tokens/s of ZeRO 1 to 3 for three models. CPU Adam, which `offload` needs, takes up to a
    minute to compile: it does so meanwhile."""
    if work.dry_run:
        _measure(work, tuple(Planned("sweep-0.2m", name, (1024,)) for name in ("zero2", "zero3", "zero1")))
        return
    compiling = subprocess.Popen([sys.executable, "-c", COMPILE])
    _measure(work, ON_DEVICE)
    with suppress(subprocess.TimeoutExpired):
        compiling.wait(work.deadline.left)


def offload(work: Work) -> None:
    """The same with the optimizer in host memory; DeepSpeed compiles its CPU Adam first."""
    _measure(work, (Planned("sweep-0.2m", "zero2_offload", (1024,)),) if work.dry_run else OFFLOADED)


def _measure(work: Work, cases: Sequence[Planned]) -> None:
    """Rows as `bigchem plan --calibrate` has them, and each peak as a figure."""
    from bigchem.launch.rendezvous.environment import rendezvous
    from bigchem.launch.rendezvous.process_group import finish, start
    from bigchem.launch.workloads import calibrate
    from bigchem.plan import from_config

    device = start(rendezvous(os.environ, os.getpid()))
    precision = "fp32" if work.dry_run else "bf16"
    for case in cases:
        label = f"{case.model}, {case.ds_config}"
        if work.deadline.left < 5:
            work.skip(label, "no time left")
            continue
        try:
            planned = from_config.planned(case.model, (f"train.precision={precision}",), 1)
            sizes = planned.micro_tokens(case.sizes, 1)
            rows = calibrate.measured(device, planned, case.ds_config, sizes)
        except Exception as failed:
            work.skip(label, failed)
            continue
        for row in rows:
            work.report.rows.append({"model": case.model, **row})
            if row["item"] == "peak of a step" and row["predicted"]:
                apart = 100 * abs(row["measured"] / row["predicted"] - 1)
                name = f"{label}, {row['micro_tokens']:,} tokens: measured peak from the planned"
                work.report.figures.append(Figure(name, apart, "%", None if work.dry_run else WITHIN))
        work.save()
    finish()


def checkpoint(work: Work) -> None:
    """`bigchem train` saves after every step and is started again: seconds, and bytes a second against dd. Then the
    pause of an asynchronous save."""
    from bigchem.bench.checkpoint import asynchronous, bench

    with TemporaryDirectory(dir=work.out.parent) as folder:
        preset, saves = ("sweep-0.2m", 1) if work.dry_run else ("t5-base", 1)
        work.report.figures += bench(Path(folder), preset, saves, 1, on_gpu=not work.dry_run)
        work.save()
        work.report.figures += asynchronous(Path(folder), 1, saves, on_gpu=not work.dry_run)
