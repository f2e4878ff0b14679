"""ZeRO checkpoint of any stage -> Hugging Face folder, in memory that does not grow with the model.

Reads the masters from DeepSpeed's files in pieces of a few megabytes and writes them to safetensors, each tied tensor
once. Then transformers' own T5 must give the probe batch the loss that the engine recorded at the save.

DeepSpeed's zero_to_fp32 unpickles whatever the files contain, and holds all weights in memory.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.base.progress import Bar, Progress, amount
from bigchem.export import shards
from bigchem.export.choose import Which, find_checkpoints
from bigchem.export.heap import return_freed_memory
from bigchem.export.proof import import_ahead, prove
from bigchem.export.unfinished import Unfinished, unfinished
from bigchem.export.weights import Weights, read_ahead
from bigchem.model.presets import write_configs
from bigchem.run.folder import not_a_run
from bigchem.sharing import provenance
from bigchem.sharing.card import take_scores, write_card
from bigchem.tasks import write_tasks
from bigchem.train.checkpoint.best import chosen
from bigchem.train.checkpoint.store import PROOF, Manifest
from bigchem.train.checkpoint.zero_layout import MASTER, ZeroFiles

EMA = "ema"
"""Optimizer state key of the running mean (train/optimizer.py)."""
SHARD_SIZE = "5GB"
MAX_HASHERS = 8
"""Limit on hashing threads if no number is given."""
READERS = 2
"""Threads that read ahead if no number is given: one waits for the disk while the other hashes."""


@dataclass(frozen=True)
class Exported:
    """A model folder and its proof: the probe batch's loss by transformers, and the one the engine recorded.

    dtype: of the files, fp32 or bf16. ema_loss, mean_loss: the probe's loss with what the folder holds, if that is the
    running mean of the weights or the mean over the checkpoints after the steps `averaged`. The engine never computed
    with a mean, so loss and recorded are then for the checkpoint's weights, read the same way. files: {name: (bytes,
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
        """The proof as JSON data."""
        table = asdict(self)
        del table["model_dir"]
        return {**table, "checkpoint": str(self.checkpoint)}

    @property
    def weights(self) -> str:
        """What the folder holds, in words."""
        if self.averaged:
            return f"the mean of the checkpoints after steps {', '.join(map(str, self.averaged))}, {self.dtype}"
        kind = provenance.AS_TRAINED if self.ema_loss is None else "the running mean of the weights over these steps"
        return f"{kind}, {self.dtype}"

    @property
    def outcome(self) -> str:
        """The proof in one line."""
        proof = f"probe loss {self.loss:.6f} (the engine recorded {self.recorded:.6f})"
        if self.mean_loss is not None:
            steps = ", ".join(map(str, self.averaged))
            mean = f"mean of the checkpoints after steps {steps}, probe loss {self.mean_loss:.6f}"
            return f"{mean}; each is proven; step {self.step} alone, read the same way: {proof}"
        if self.ema_loss is None:
            return f"step {self.step}, {proof}"
        mean = f"running mean of the weights, probe loss {self.ema_loss:.6f}"
        return f"step {self.step}, {mean}; the weights themselves, read the same way: {proof}"

    def summary(self) -> str:
        """The folder and its proof, in one line."""
        return f"{self.model_dir}: {self.outcome}"


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
    """Writes a checkpoint of a run to `out`: the best if the run retains it (validation.keep_best), else the newest, or
    the one chosen by `step` (see Which). `source` may also be a checkpoint. A killed export is resumed.

    ema: export the running mean of the weights (optimizer.ema). average: export the mean over that many checkpoints,
    see find_checkpoints. shard_size: largest file, such as 5GB. workers: threads that read ahead; None: READERS, as
    more take more memory. hashes: verify what is read; a checkpoint with hashes of whole files is verified first, by
    as many threads as there are cores, up to MAX_HASHERS. progress: None: silent.

    UserError if the checkpoint is missing, damaged or not bigchem's, if `out` exists, if the result does not reproduce
    the probe's loss, or if there is no running mean to export.
    """
    progress = progress or Progress(quiet=True)
    hashers = workers or min(MAX_HASHERS, len(os.sched_getaffinity(0)))
    if ema and average > 1:
        raise UserError("the running mean is already a mean", "--average", "give either --ema or --average")
    _check_out(out, overwrite=overwrite)
    largest = shards.read_size(shard_size)
    checkpoints, run_dir = find_checkpoints(source, step, average)
    tokenizer = run_dir / "tokenizer"
    if not tokenizer.is_dir():
        raise UserError("the run folder has no tokenizer", str(tokenizer), "export from a bigchem run folder")
    manifests = of_one_run(checkpoints)
    for checkpoint, manifest in zip(checkpoints, manifests, strict=True):
        check_files(checkpoint, manifest, hashers, progress, hashes=hashes)
    files = [ZeroFiles(path, manifest, hashes=hashes) for path, manifest in zip(checkpoints, manifests, strict=True)]
    if ema and EMA not in files[0].keys:
        raise UserError(
            "holds no running mean of the weights", str(checkpoints[0]), "train with optimizer.ema, or drop --ema"
        )
    weights, dtype = Weights(files, EMA if ema else MASTER), torch.bfloat16 if bf16 else torch.float32
    parts = shards.divide(weights.shapes, dtype, largest)
    manifest_files = {str(path.resolve()): (path / "manifest.json").read_bytes() for path in checkpoints}
    identity = {
        "checkpoints": {path: hashlib.sha256(content).hexdigest() for path, content in manifest_files.items()},
        "what": [str(dtype), ema],
        "files": [part.file for part in parts],
    }
    with return_freed_memory(), unfinished(out, identity) as partial:
        _check_out(out, overwrite=overwrite)  # another process may have made it in the meantime
        transformers = import_ahead()
        _write(weights, dtype, parts, partial, workers or READERS, progress)
        transformers.result()
        write_configs(manifests[-1].model, "bfloat16" if bf16 else "float32", partial.folder)
        shutil.copytree(tokenizer, partial.folder, dirs_exist_ok=True)
        progress.say("proving: transformers on the probe batch")
        losses = prove(partial.folder, checkpoints, manifests, files, rounded=bf16, mean=ema or average > 1)
        partial.settle()
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
        if (tasks := provenance.trained_tasks(run_dir)) is not None:
            write_tasks(partial.folder, tasks)
        provenance.of_run(run_dir, manifests[-1], made.weights, made.outcome).write(partial.folder)
        shared = {**made.proof(), "checkpoint": f"{run_dir.resolve().name}/{checkpoints[-1].name}"}  # names no path
        atomic.write_atomically(partial.folder / PROOF, json.dumps(shared, indent=1))
        with suppress(UserError, OSError):  # not evaluated, or not with these weights: the card says that it was not
            take_scores(partial.folder, run_dir / "results" / "results.json")
        write_card(partial.folder, out.resolve().name)
    return made


def _check_out(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UserError("already exists", str(out), "choose another folder, or --overwrite")
    if out.exists() and not (out / PROOF).is_file():
        raise UserError("is not an exported model", str(out), "choose another folder")


def _write(
    weights: Weights,
    dtype: torch.dtype,
    parts: Sequence[shards.Shard],
    partial: Unfinished,
    workers: int,
    progress: Progress,
) -> None:
    """Writes the shards that are missing, and their index. The last one reaches the disk during the proof."""
    if partial.reused:
        progress.say(f"resuming an interrupted export: {partial.reused} of {len(parts)} files are complete")
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
            if part.file != parts[-1].file:
                partial.settle()
    if len(parts) > 1:
        table = shards.index(parts, weights.shapes, dtype)
        atomic.write_atomically(partial.folder / shards.INDEX, json.dumps(table, indent=1))


def of_one_run(checkpoints: Sequence[Path]) -> list[Manifest]:
    """Their manifests. UserError unless all are of one model and one data set."""
    manifests = [Manifest.read(path) for path in checkpoints]
    last = manifests[-1]
    for path, other in zip(checkpoints, manifests, strict=True):
        if (other.model, other.data_fingerprint) != (last.model, last.data_fingerprint):
            what = f"is of another model or other data than {checkpoints[-1].name}"
            raise UserError(what, str(path), "average fewer")
    return manifests


def check_files(checkpoint: Path, manifest: Manifest, workers: int, progress: Progress, *, hashes: bool) -> None:
    """UserError that names the first file that differs from the manifest in size. Hashes of whole files are compared
    here, by `workers` threads; those of blocks when they are read."""
    hashes = hashes and not manifest.by_blocks
    with progress.bar(f"checking {checkpoint.name}, MB", manifest.bytes // 10**6 if hashes else None) as bar:
        meter = Meter(bar)

        def damage(share: int) -> str | None:
            return manifest.damage(checkpoint, share, workers, progress=meter, hashes=hashes)

        for found in read_ahead(damage, range(workers), workers):
            if found is not None:
                raise UserError(found, str(checkpoint), "use an earlier checkpoint")


class Meter:
    """Advances a bar of megabytes by bytes. Thread-safe."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._bytes, self._lock = bar, 0, Lock()

    def __call__(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            self._bar.advance(self._bytes // 10**6 - self._bar.done)


def is_newest(model_dir: Path, run_dir: Path) -> bool:
    """Whether a model folder is the fp32 export of the run's current best or newest checkpoint."""
    found = chosen(run_dir / "checkpoints")
    if found is None or not (model_dir / PROOF).is_file():
        return False
    try:
        proof = json_file.load_object(model_dir / PROOF)
    except RecordError:  # torn: export again
        return False
    own = proof.get("dtype") == "fp32" and proof.get("ema_loss") is None and not proof.get("averaged")
    return bool(own and proof.get("step") == Manifest.read(found).step)


def model_folder(path: Path) -> Path:
    """A consolidated model's folder: in a run folder its model/, exported again if outdated; else the path itself.
    UserError if there is no model."""
    if (path / "config.toml").is_file():
        if not is_newest(path / "model", path):
            export(path, path / "model", overwrite=True)
        return path / "model"
    if not (path / "config.json").is_file():
        raise not_a_run(path, "give a run folder, or a folder made by bigchem export")
    return path
