"""ZeRO checkpoint of any stage -> Hugging Face folder, in memory that does not grow with the model.

The masters are read from DeepSpeed's files in pieces of a few megabytes and written to safetensors, each tied tensor
once. Then transformers' own T5 must give the probe batch the loss that the engine recorded when it saved.

DeepSpeed's own zero_to_fp32 unpickles whatever the files hold, and holds all weights.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress, amount
from bigchem.export import shards
from bigchem.export.card import card
from bigchem.export.check import Meter, check_files, of_one_run
from bigchem.export.choose import Which, find_checkpoints
from bigchem.export.heap import return_freed_memory
from bigchem.export.proof import prove
from bigchem.export.unfinished import Unfinished, unfinished
from bigchem.export.weights import Weights
from bigchem.model.presets import write_configs
from bigchem.train.checkpoint.store import PROOF, sha256_of
from bigchem.train.checkpoint.zero_layout import MASTER, ZeroFiles

EMA = "ema"
"""Key of the running mean among the optimizer's states (train/optimizer.py)."""
SHARD_SIZE = "5GB"
MOST_HASHERS = 8
"""Threads that hash where no number is given and there are more cores."""


@dataclass(frozen=True)
class Exported:
    """A model folder and its proof: the probe batch's loss by transformers, and what the engine recorded.

    dtype: of the files, fp32 or bf16. ema_loss, mean_loss: where the folder holds the running mean of the weights, or
    the mean over the checkpoints after the steps `averaged`, the probe's loss with it. The engine never computed with
    that: loss and recorded are those of the checkpoint's weights, which are read in the same way. files: {name: (bytes,
    sha256)} of the weights.
    """

    model_dir: Path
    checkpoint: Path
    step: int
    tokens: int
    dtype: str
    loss: float
    recorded: float
    ema_loss: float | None = None
    mean_loss: float | None = None
    averaged: tuple[int, ...] = ()
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def proof(self) -> dict[str, Any]:
        """The proof as plain data."""
        table = asdict(self)
        del table["model_dir"]
        return {**table, "checkpoint": str(self.checkpoint)}

    def told(self) -> str:
        """The proof in a line."""
        proof = f"probe loss {self.loss:.6f} (the engine recorded {self.recorded:.6f})"
        if self.mean_loss is not None:
            steps = ", ".join(map(str, self.averaged))
            mean = f"mean of the checkpoints after steps {steps}, probe loss {self.mean_loss:.6f}"
            return f"{self.model_dir}: {mean}; each is proven; step {self.step} alone, read in the same way: {proof}"
        if self.ema_loss is None:
            return f"{self.model_dir}: step {self.step}, {proof}"
        mean = f"running mean of the weights, probe loss {self.ema_loss:.6f}"
        return f"{self.model_dir}: step {self.step}, {mean}; the weights themselves, read in the same way: {proof}"


def export(
    source: Path,
    out: Path,
    *,
    step: Which = None,
    bf16: bool = False,
    overwrite: bool = False,
    ema: bool = False,
    average: int = 1,
    shard_size: str = SHARD_SIZE,
    workers: int | None = None,
    hashes: bool = True,
    progress: Progress | None = None,
) -> Exported:
    """Writes a checkpoint of a run to `out`: the best where the run keeps it (validation.keep_best), else the newest;
    or another, see Which; or the given checkpoint. An attempt that was killed is gone on with.

    ema: the running mean of the weights (optimizer.ema). average: the mean over so many checkpoints, see
    find_checkpoints. shard_size: largest file, as in 5GB. workers: threads that hash, then read ahead; None: one
    hashes for each core that this process may use, at most MOST_HASHERS, then one reads, as more take more memory.
    hashes: compare the checkpoint's files with theirs, which reads all of them; else only the weights are read.
    progress: None: nothing is told.

    UserError if the checkpoint is missing, damaged or not bigchem's, if `out` exists, if the result does not have the
    probe's loss, or if a running mean is asked for where there is none.
    """
    progress = progress or Progress(quiet=True)
    hashers = workers or min(MOST_HASHERS, len(os.sched_getaffinity(0)))
    if ema and average > 1:
        raise UserError("the running mean is a mean already", "--average", "give either --ema or --average")
    _check_out(out, overwrite=overwrite)
    largest = shards.read_size(shard_size)
    checkpoints, run_dir = find_checkpoints(source, step, average)
    tokenizer = run_dir / "tokenizer"
    if not tokenizer.is_dir():
        raise UserError("the run folder has no tokenizer", str(tokenizer), "export from the folder of a run of ours")
    manifests = of_one_run(checkpoints)
    for checkpoint, manifest in zip(checkpoints, manifests, strict=True):
        check_files(checkpoint, manifest, hashers, progress, hashes=hashes)
    files = [ZeroFiles(path, manifest) for path, manifest in zip(checkpoints, manifests, strict=True)]
    if ema and EMA not in files[0].keys:
        raise UserError(
            "holds no running mean of the weights", str(checkpoints[0]), "train with optimizer.ema, or leave --ema"
        )
    weights, dtype = Weights(files, EMA if ema else MASTER), torch.bfloat16 if bf16 else torch.float32
    parts = shards.divide(weights.shapes, dtype, largest)
    identity = {
        "checkpoints": {str(path.resolve()): sha256_of(path / "manifest.json") for path in checkpoints},
        "what": [str(dtype), ema],
        "files": [part.file for part in parts],
    }
    with return_freed_memory(), unfinished(out, identity) as partial:
        _check_out(out, overwrite=overwrite)  # another process may have made it meanwhile
        _write(weights, dtype, parts, partial, workers or 1, progress)
        write_configs(manifests[-1].model, "bfloat16" if bf16 else "float32", partial.folder)
        shutil.copytree(tokenizer, partial.folder, dirs_exist_ok=True)
        progress.say("proving: transformers on the probe batch")
        losses = prove(partial.folder, checkpoints, manifests, files, rounded=bf16, mean=ema or average > 1)
        made = Exported(
            out,
            checkpoints[-1],
            manifests[-1].step,
            manifests[-1].tokens,
            "bf16" if bf16 else "fp32",
            losses.checkpoint,
            manifests[-1].probe["loss"],
            ema_loss=losses.written if ema else None,
            mean_loss=losses.written if average > 1 else None,
            averaged=tuple(manifest.step for manifest in manifests) if average > 1 else (),
            files=partial.files,
        )
        atomic.write_atomically(partial.folder / "README.md", card(made.told(), out.name, manifests[-1], run_dir))
        atomic.write_atomically(partial.folder / PROOF, json.dumps(made.proof(), indent=1))
    return made


def _check_out(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UserError("exists already", str(out), "choose another folder, or --overwrite")
    if out.exists() and not (out / PROOF).is_file():
        raise UserError("is not a model that was exported here", str(out), "choose another folder")


def _write(
    weights: Weights,
    dtype: torch.dtype,
    parts: Sequence[shards.Shard],
    partial: Unfinished,
    workers: int,
    progress: Progress,
) -> None:
    """The shards that are not whole yet, and their index."""
    if partial.kept:
        progress.say(f"going on with an attempt that was cut off: {partial.kept} of {len(parts)} files are whole")
    total = sum(shape.numel() for shape in weights.shapes.values()) * dtype.itemsize
    with progress.bar(f"writing {amount(total)}, MB", total // 10**6) as bar:
        meter = Meter(bar)
        for part in parts:
            shapes = {name: weights.shapes[name] for name in part.tensors}
            if part.file in partial.files:
                meter(sum(shape.numel() for shape in shapes.values()) * dtype.itemsize)
                continue
            pieces = weights.pieces(part.tensors, workers)
            partial.finish(part.file, *shards.write_shard(partial.folder / part.file, shapes, dtype, pieces, meter))
    if len(parts) > 1:
        table = shards.index(parts, weights.shapes, dtype)
        atomic.write_atomically(partial.folder / shards.INDEX, json.dumps(table, indent=1))
