"""Checkpoints are published, not written.

    step_00000300.partial/    all ranks write into it; when they have, rank 0 adds
        manifest.json         files, sizes, hashes, world size, stage, position
    step_00000300/            the same folder, renamed after an fsync of everything
    latest                    the name of the newest

A folder without the suffix is complete. Partial ones are never loaded, and are removed by the next save.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.config import CheckpointConfig
from bigchem.errors import UserError

FORMAT = 1
PARTIAL = ".partial"
PROOF = "bigchem.json"
"""Name of the file in an exported model's folder that says which checkpoint it is, and proves it."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says of a checkpoint.

    step: optimizer steps done. position: examples consumed. model: the Hugging Face configuration. probe: a loss that
    the engine computed when it saved, for export to compare with. state: what the loop itself remembers, by who
    remembers it ("health", "validation"), as JSON. files: {name: [bytes, sha256]}.
    """

    step: int
    position: int
    tokens: int
    world_size: int
    zero_stage: int
    precision: str
    data_fingerprint: str
    model: dict[str, Any]
    probe: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    @staticmethod
    def read(checkpoint: Path) -> Manifest:
        """The manifest of a published checkpoint; UserError if there is none or it is not one."""
        file = checkpoint / "manifest.json"
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
            if table.pop("format") != FORMAT:
                raise UserError("written by another version", str(file))
            return Manifest(**table)
        except FileNotFoundError:
            raise UserError("no checkpoint here: manifest.json is missing", str(checkpoint)) from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"not a manifest: {error!r}", str(file)) from None

    def refuse_unless(
        self, checkpoint: Path, world_size: int, zero_stage: int, precision: str, fingerprint: str
    ) -> None:
        """UserError if the checkpoint cannot be resumed by such a job on such data."""
        if self.data_fingerprint != fingerprint:
            raise UserError(
                f"trained on data {self.data_fingerprint}, the data now is {fingerprint}",
                str(checkpoint),
                "restore the data, or give the run another name",
            )
        saved, present = (self.world_size, self.zero_stage, self.precision), (world_size, zero_stage, precision)
        if saved != present:
            raise UserError(
                "saved by {} ranks at ZeRO-{} in {}, this job has {} at ZeRO-{} in {}".format(*saved, *present),
                str(checkpoint),
                "resume on as many ranks, at the same stage and precision, or give the run another name",
            )

    def check_files(self, checkpoint: Path) -> None:
        """Compares every file's size and hash with the manifest; UserError names the first that differs."""
        remedy = f"remove {checkpoint} to go on from the checkpoint before it"
        for name, (size, sha256) in self.files.items():
            path = checkpoint / name
            if not path.is_file():
                raise UserError("a file of the checkpoint is missing", str(path), remedy)
            if path.stat().st_size != size or _sha256(path) != sha256:
                raise UserError("the file differs from the checkpoint's manifest", str(path), remedy)


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step_{step:08d}"


def published(checkpoints: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in checkpoints.glob("step_*") if p.suffix != PARTIAL and (p / "manifest.json").is_file())


def latest(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = published(checkpoints)
    return found[-1] if found else None


def publish(checkpoints: Path, partial: Path, manifest: Manifest) -> Path:
    """Turns a folder that all ranks have written into a checkpoint. Rank 0 only, after a barrier."""
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    listed = {str(p.relative_to(partial)): (p.stat().st_size, _sha256(p)) for p in files}
    table = {"format": FORMAT, **asdict(manifest), "files": listed}
    strict.write_atomically(partial / "manifest.json", json.dumps(table, indent=1))
    for path in files:
        _fsync(path)
    _fsync(partial)
    final = checkpoints / step_name(manifest.step)
    shutil.rmtree(final, ignore_errors=True)  # an older attempt at the same step, being replaced by an equal one
    partial.rename(final)
    _fsync(checkpoints)
    strict.write_atomically(checkpoints / "latest", final.name + "\n")
    return final


def clean(checkpoints: Path, config: CheckpointConfig, *, best: int | None = None) -> None:
    """Removes partial checkpoints, complete ones beyond the newest `keep` that are not kept for good, and the recovery
    scripts that DeepSpeed leaves: they do not understand T5's tied embedding, tools/consolidate.py does.

    best: step of one that stays whatever its age.
    """
    for path in checkpoints.glob("zero_to_*.py"):
        path.unlink()
    for path in checkpoints.glob(f"step_*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)
    for path in published(checkpoints)[: -config.keep]:
        step = int(path.name.removeprefix("step_"))
        if step != best and not (config.keep_every and step % config.keep_every == 0):
            shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
