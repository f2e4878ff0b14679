"""Saving beside dd, and resuming beside a cold start: `bigchem train` itself, on two CPU ranks at ZeRO-2 in fp32.

Fresh weights of t5-base (223 M parameters, 2.7 GB a checkpoint). Steps are tiny, so that they cost little. Needs 12 GB
of memory and 10 GB in the folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bigchem import program
from bigchem.errors import UserError

BLOCK = 16 << 20
app = typer.Typer(add_completion=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Where to write: the disk that is measured.")] = Path(),
    preset: Annotated[str, typer.Option(help="Shape of the model.")] = "t5-base",
    saves: Annotated[int, typer.Option(min=2, help="Checkpoints, each followed by dd of as many bytes.")] = 4,
    ranks: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Measures checkpoints of a model of PRESET."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        bench(Path(work), preset, saves, ranks)


def bench(work: Path, preset: str, saves: int, ranks: int) -> None:
    """A cold start that saves after every step, dd of the same bytes after each save, and a resumed start."""
    prepare(work, preset)
    cold = start(work, ranks, steps=saves)
    told = re.findall(
        r"after step (\d+): ([\d.]+) GB in ([\d.]+) s", (run_dir(work) / "logs" / "rank0.log").read_text()
    )
    newest = max((run_dir(work) / "checkpoints").glob("step_*"))
    size = sum(path.stat().st_size for path in newest.iterdir())
    rates = [size / 1e9 / float(seconds) for seconds in told]
    disk = [dd(work / "dd", size) for _ in rates]
    print(f"checkpoint: {size / 1e9:.2f} GB from {ranks} ranks")
    print("save, GB/s:  " + " ".join(f"{rate:.2f}" for rate in rates))
    print("dd, GB/s:    " + " ".join(f"{rate:.2f}" for rate in disk))
    print(f"save / dd:   {median(rates) / median(disk):.2f} (medians; asked: 0.80 or more)")
    for path in newest.iterdir():
        forget(path)
    resumed = start(work, ranks, steps=saves + 1)
    print(f"to the end of the first step: cold {cold:.1f} s, resumed {resumed:.1f} s")
    print(f"resumed / cold: {resumed / cold:.2f} (asked: less than 2)")


def prepare(work: Path, preset: str) -> None:
    """A small corpus, and a folder of fresh weights with all of T5's embedding rows."""
    from bigchem.data.build import build
    from bigchem.data.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig
    from bigchem.model.presets import shape
    from bigchem.model.pretrained import save_pretrained
    from bigchem.model.t5 import PackedT5
    from bigchem.progress import Progress

    sources = (SourceConfig(format="synthetic", split="train", rows=600, seed=1),)
    build(BuildConfig(sources=sources), work / "data", Progress(quiet=True), workers=1)
    save_pretrained(PackedT5(shape(preset)), work / "weights")


def run_dir(work: Path) -> Path:
    """The run's folder."""
    return work / "runs" / "bench"


def start(work: Path, ranks: int, steps: int) -> float:
    """Trains to `steps` steps; seconds from the start of the launcher to the end of this start's first step."""
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
        "train.precision": "fp32",
        "train.ds_config": "zero2",
        "train.log_every": 1,
        "schedule.kind": "constant",
        "schedule.warmup_steps": 0,
        "checkpoint.every": 1,
        "checkpoint.keep": 1,
        "evaluate.at_end": "false",
    }
    (work / "empty.toml").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "bigchem.cli", "train", str(work / "empty.toml")]
    command += [part for key, value in fields.items() for part in ("--set", f"{key}={value}")]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    begun = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"training failed: {(done.stdout + done.stderr)[-2000:]}", str(work))
    return first_step(run_dir(work) / "metrics.jsonl", begun) - begun


def first_step(metrics: Path, after: float) -> float:
    """Time of the first row that was written after a moment."""
    return min(t for line in metrics.read_text().splitlines() if (t := float(json.loads(line)["time"])) > after)


def dd(path: Path, size: int) -> float:
    """GB/s at which dd writes so many bytes, the fsync included."""
    blocks = size // BLOCK
    command = ["dd", "if=/dev/zero", f"of={path}", f"bs={BLOCK}", f"count={blocks}", "conv=fsync"]
    begun = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    seconds = time.monotonic() - begun
    path.unlink()
    return blocks * BLOCK / 1e9 / seconds


def forget(path: Path) -> None:
    """Asks the kernel to drop a file from its cache, as after a reboot or on another node."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    if shutil.which("dd") is None:
        sys.exit("error: dd is not installed")
    program.run(app)
