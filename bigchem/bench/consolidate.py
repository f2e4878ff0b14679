"""Consolidation against DeepSpeed's zero_to_fp32.py: time and peak memory on the same checkpoint.

The checkpoints are real: DeepSpeed engines in bf16 on four CPU ranks, at ZeRO-2 and ZeRO-3, save fresh weights. The
moments are zeros, because no step is taken. t5-base (223 M parameters) needs 5 GB of memory and 8 GB in the folder,
t5-large (738 M) 14 GB and 20 GB. The programs take turns, as separate processes, on files dropped from the page cache.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.bench.checkpoint import forget, prepare
from bigchem.bench.common import Figure, print_figures
from bigchem.cli import program
from bigchem.launch.cluster.local import on_ranks

TIMEOUT_MIN = 120
CASES = ("t5-base-zero2", "t5-base-zero3", "t5-large-zero2", "t5-large-zero3")


def main(
    folder: Annotated[Path, typer.Option(help="Folder on the disk to measure.")] = Path(),
    only: Annotated[str, typer.Option(help=f"Comma-separated cases: {', '.join(CASES)}, or another PRESET-zeroN.")] = (
        "t5-base-zero2,t5-base-zero3"
    ),
    ranks: Annotated[int, typer.Option(min=1, help="Ranks that write the checkpoint.")] = 4,
    turns: Annotated[int, typer.Option(min=1, help="Timed runs of each program.")] = 3,
    as_json: program.Json = False,
) -> None:
    """Compare time and memory of `bigchem export` with zero_to_fp32.py.

    Example: bigchem bench consolidate --folder /scratch --only t5-large-zero3
    """
    progress, figures = Progress(), []
    for case in only.split(","):
        preset, _, stage = case.rpartition("-zero")
        if not preset or not stage.isdigit():
            raise UserError(f"unknown case '{case}'", "--only", f"PRESET-zeroN, such as {CASES[0]}")
        with tempfile.TemporaryDirectory(dir=folder) as work:
            progress.say(f"{case}: writing a checkpoint with {ranks} ranks")
            prepare(Path(work), preset)
            figures += bench(Path(work), case, make(Path(work), int(stage), ranks), turns, progress)
    print_figures(figures, as_json)


def bench(work: Path, case: str, checkpoint: Path, turns: int, progress: Progress) -> list[Figure]:
    """Runs both programs in turn, checks that their weights are equal, returns medians."""
    export = [sys.executable, "-m", "bigchem", "export", str(checkpoint), str(work / "ours")]
    theirs = [sys.executable, "-m", "deepspeed.utils.zero_to_fp32", str(checkpoint.parent), str(work / "theirs")]
    programs = {
        "zero_to_fp32.py": [*theirs, "-t", checkpoint.name],
        "bigchem export": export,
        "bigchem export --no-hashes": [*export, "--no-hashes"],
    }
    runs: dict[str, list[list[float]]] = {label: [] for label in programs}
    for turn in range(turns):
        for label, command in programs.items():
            for name in ("theirs", "ours") if label == "zero_to_fp32.py" else ("ours",):
                shutil.rmtree(work / name, ignore_errors=True)
            for path in checkpoint.iterdir():
                forget(path)
            runs[label].append(measured(command))
            seconds, busy, peak = runs[label][-1]
            progress.say(f"{case}, turn {turn + 1}, {label}: {seconds:.1f} s ({busy:.1f} s CPU), {peak / 1e9:.2f} GB")
    refuse_unless_equal(work / "ours", work / "theirs")
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    found = {label: tuple(median(column) for column in zip(*rows, strict=True)) for label, rows in runs.items()}
    figures = [Figure(f"{case}: the checkpoint", size / 1e9, "GB")]
    for label, (seconds, busy, peak) in found.items():
        figures += [
            Figure(f"{case}: {label}", seconds, "s"),
            Figure(f"{case}: {label}, CPU time", busy, "s"),
            Figure(f"{case}: {label}, peak memory", peak / 1e9, "GB"),
        ]
    base, ours = found["zero_to_fp32.py"], found["bigchem export"]
    return [
        *figures,
        Figure(f"{case}: time, bigchem export / zero_to_fp32.py", ours[0] / base[0], "x"),
        Figure(f"{case}: memory, zero_to_fp32.py / bigchem export", base[2] / ours[2], "x"),
    ]


_MEASURE = """
import json, resource, subprocess, sys, time
begun = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
figures = [time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0]
print(json.dumps([done.returncode, done.stderr[-2000:], figures]))
"""
"""A small program in between: on Linux a child's peak includes what its parent had resident at the fork."""


def measured(command: Sequence[str]) -> list[float]:
    """Wall seconds, CPU seconds and peak resident bytes of a program; UserError if it fails."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    between = [sys.executable, "-c", _MEASURE, *command]
    output = subprocess.run(between, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    status, errors, figures = json.loads(output)
    if status:
        raise UserError(f"failed: {errors}", " ".join(command))
    return [float(figure) for figure in figures]


def refuse_unless_equal(ours: Path, theirs: Path) -> None:
    """UserError unless both folders have the same weights, bit for bit."""
    from bigchem.model.weights.pretrained import weights_of

    expected = dict(weights_of(theirs))
    for name, weight in weights_of(ours):
        if not torch.equal(weight, expected.pop(name)):
            raise UserError(f"{name} differs from zero_to_fp32.py's", str(ours))
    if expected:
        raise UserError(f"lacks {', '.join(expected)}", str(ours))


def make(work: Path, stage: int, ranks: int) -> Path:
    """A published checkpoint of the weights in work/weights, saved by `ranks` ranks."""
    from bigchem.base.toml import validate
    from bigchem.config import RunConfig

    table = {
        "name": "bench",
        "runs": str(work / "runs"),
        "model": {"init_from": str(work / "weights"), "dropout": 0.0},
        "data": {"path": str(work / "data"), "global_tokens": 1024 * ranks, "micro_tokens": 1024},
        "train": {"steps": 1, "precision": "bf16", "ds_config": f"zero{stage}"},
        "schedule": {"kind": "constant", "warmup_steps": 0},
    }
    config = validate(RunConfig, table, "bench")
    os.environ["OMP_NUM_THREADS"] = "1"
    on_ranks(_save, ranks, TIMEOUT_MIN, config, gpus=False)
    return next((config.run_dir / "checkpoints").glob("step_*"))


def _save(device: torch.device, config: Any) -> None:
    """One rank: builds an engine and saves."""
    from bigchem.data.loader import Loader
    from bigchem.data.step_plan import open_data
    from bigchem.launch.runs.prepare import prepare as prepare_run
    from bigchem.model.presets import to_hf_config
    from bigchem.train.checkpoint.probe import Probe
    from bigchem.train.collectives import on_rank0
    from bigchem.train.engine import Engine
    from bigchem.train.model_factory import build
    from bigchem.train.saving import Saver, TrainingPosition

    on_rank0(lambda: prepare_run(config))
    data = open_data(config.data)
    model = build(config, data, device)
    shape = model.shape
    loader = Loader(data, config.data, config.seed, dist.get_rank(), dist.get_world_size())
    engine = Engine(model, config, device, loader.names)
    give_moments(engine)
    saver = Saver(config, engine, Probe.of(loader), data.index.fingerprint, to_hf_config(shape, 0.0))
    saver.save(TrainingPosition(1, 1, 1), {}, final=True)
    saver.close()


def give_moments(engine: Any) -> None:
    """Allocates AdamW's moments as zeros; otherwise its first step would."""
    zero = engine._engine.optimizer
    name = "fp32_partitioned_groups_flat" if engine.zero_stage == 3 else "single_partition_of_fp32_groups"
    for flat in getattr(zero, name):
        moments = {key: torch.zeros_like(flat) for key in ("exp_avg", "exp_avg_sq")}
        engine._optimizer.state[flat] = {"step": torch.tensor(1.0), **moments}
