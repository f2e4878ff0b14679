"""Saving against dd, asynchronous saving, and resuming against a cold start, with `bigchem train` at ZeRO-2: on two CPU
ranks in fp32.

Uses fresh weights of t5-base (223 M parameters, 2.7 GB per checkpoint) and tiny, cheap steps. Needs 15 GB of memory and
10 GB in the folder.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bigchem.base.errors import UserError
from bigchem.bench.common import Figure, print_figures, small_corpus
from bigchem.cli import program

BLOCK = 16 << 20
EMBEDDING_ROWS = 32128


def main(
    folder: Annotated[Path, typer.Option(help="Folder on the disk to measure.")] = Path(),
    preset: Annotated[str, typer.Option(help="Model preset.")] = "t5-base",
    saves: Annotated[int, typer.Option(min=1, help="Number of checkpoints, and of dd runs.")] = 4,
    ranks: Annotated[int, typer.Option(min=1, help="Number of ranks.")] = 2,
    as_json: program.Json = False,
) -> None:
    """Time saving against dd, asynchronous saving, and resuming against a cold start.

    Example: bigchem bench checkpoint --folder /scratch
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        figures = bench(Path(work), preset, saves, ranks) + asynchronous(Path(work), ranks, saves)
    print_figures(figures, as_json)


def bench(work: Path, preset: str, saves: int, ranks: int, *, on_gpu: bool = False) -> list[Figure]:
    """A cold start that saves after every step, dd of as many bytes, and a resume that reads from the disk. on_gpu: in
    bf16, a GPU for each rank."""
    prepare(work, preset)
    cold = start(work, ranks, saves, on_gpu=on_gpu)
    saved = saves_of(work)
    newest = max((run_dir(work) / "checkpoints").glob("step_*"))
    size = sum(path.stat().st_size for path in newest.iterdir())
    write, pause = (median(size / max(seconds, 0.05) for seconds in column) for column in zip(*saved, strict=True))
    disks = {flag: median(dd(work / "dd", size, flag) for _ in saved) for flag in ("conv=fsync", "oflag=direct")}
    for path in newest.iterdir():
        forget(path)
    resumed = start(work, ranks, saves + 1, on_gpu=on_gpu)
    return [
        Figure(f"a checkpoint of {preset}, {ranks} ranks, ZeRO-2, {'bf16' if on_gpu else 'fp32'}", size / 1e9, "GB"),
        Figure(f"writing, hashing and publishing it, median of {saves}", write / 1e9, "GB/s"),
        Figure("the same plus the probe's loss: training pauses", pause / 1e9, "GB/s"),
        *(Figure(f"dd of as many bytes, {flag}", disk / 1e9, "GB/s") for flag, disk in disks.items()),
        Figure("writing / the faster dd", write / max(disks.values()), "x", 0.8, True),
        Figure("with the probe's loss / the faster dd", pause / max(disks.values()), "x"),
        Figure("cold start: launcher to end of first step", cold, "s"),
        Figure("the same, resumed", resumed, "s"),
        Figure("resumed / cold", resumed / cold, "x", 2),
    ]


def asynchronous(work: Path, ranks: int, saves: int, *, on_gpu: bool = False) -> list[Figure]:
    """After `bench`, the same run saves as many checkpoints asynchronously."""
    written, before = (median(column) for column in zip(*saves_of(work), strict=True))
    start(work, ranks, 2 * saves + 2, on_gpu=on_gpu, async_save=True)
    line = r"copied in (\S+) s, published after (\S+) s; training paused for (\S+) s"
    copied, published, paused = zip(*numbers(work, line), strict=True)
    rows = [json.loads(line) for line in (run_dir(work) / "metrics.jsonl").read_text().splitlines()]
    meanwhile, alone = (median(row["step_s"] for row in part) for part in (rows[saves + 2 :], rows[1 : saves + 1]))
    return [
        Figure(f"training pauses for a save, median of {saves}", before, "s"),
        Figure("of which for writing, hashing and publishing", written, "s"),
        Figure("for an asynchronous save", median(paused), "s"),
        Figure("of which for copying", median(copied), "s"),
        Figure("copying for the first, into new memory", copied[0], "s"),
        Figure("it is published after", median(published), "s"),
        Figure("pauses, at once / asynchronous", before / median(paused), "x"),
        Figure("writing at once / copying", written / median(copied), "x"),
        Figure("a step meanwhile / a step alone", meanwhile / alone, "x"),
    ]


def saves_of(work: Path) -> list[tuple[float, ...]]:
    """(seconds for writing, seconds that training paused) of every save at once."""
    return numbers(work, r"checkpoint after step \d+: \S+ .B in (\S+) s .*; training \D+(\S+) s")


def numbers(work: Path, line: str) -> list[tuple[float, ...]]:
    """The groups of every match in the log."""
    log = (run_dir(work) / "logs" / "rank0.log").read_text()
    return [tuple(map(float, found)) for found in re.findall(line, log)]


def prepare(work: Path, preset: str) -> None:
    """Makes a small corpus, and a folder of fresh weights with all of T5's embedding rows."""
    from bigchem.model.presets import shape
    from bigchem.model.t5 import PackedT5
    from bigchem.model.weights.pretrained import save_pretrained

    small_corpus(work / "data")
    save_pretrained(PackedT5(shape(preset, EMBEDDING_ROWS)), work / "weights")


def run_dir(work: Path) -> Path:
    """The run's folder."""
    return work / "runs" / "bench"


def start(work: Path, ranks: int, steps: int, *, on_gpu: bool, async_save: bool = False) -> float:
    """Trains up to step `steps`; seconds from the launcher's start to the end of the first step of this start."""
    fields = {
        "name": "bench",
        "runs": str(work / "runs"),
        "model.init_from": str(work / "weights"),
        "data.path": str(work / "data"),
        "data.global_tokens": 600 * ranks,
        "data.micro_tokens": 600,
        "data.max_source_tokens": 300,
        "data.max_target_tokens": 300,
        "train.steps": steps,
        "train.precision": "bf16" if on_gpu else "fp32",
        "train.ds_config": "zero2",
        "train.log_every": 1,
        "schedule.kind": "constant",
        "schedule.warmup_steps": 0,
        "checkpoint.every": 1,
        "checkpoint.keep": 1,
        "checkpoint.async_save": str(async_save).lower(),
        "evaluate.at_end": "false",
    }
    (work / "empty.toml").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "bigchem", "train", str(work / "empty.toml")]
    command += [part for key, value in fields.items() for part in ("--set", f"{key}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if on_gpu else {"DS_ACCELERATOR": "cpu"})}
    begun = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"training failed: {(done.stdout + done.stderr)[-2000:]}", str(work))
    return first_step(run_dir(work) / "metrics.jsonl", begun) - begun


def first_step(metrics: Path, after: float) -> float:
    """Time of the first row written after `after`."""
    return min(t for line in metrics.read_text().splitlines() if (t := float(json.loads(line)["time"])) > after)


def dd(path: Path, size: int, flag: str) -> float:
    """Bytes per second at which dd writes `size` bytes to disk; oflag=direct bypasses the page cache."""
    blocks = -(-size // BLOCK)
    command = ["dd", "if=/dev/zero", f"of={path}", f"bs={BLOCK}", f"count={blocks}", *{flag, "conv=fsync"}]
    begun = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    seconds = time.monotonic() - begun
    path.unlink()
    return blocks * BLOCK / seconds


def forget(path: Path) -> None:
    """Asks the kernel to drop a file from its page cache, as after a reboot or on another node."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
