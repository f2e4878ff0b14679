"""Published checkpoints: atomic, verified, with retention.

    step_00000300.partial/    all ranks write into it; then rank 0 adds
        manifest.json         files, sizes, hashes, world size, stage, position
    step_00000300/            the same folder, renamed after everything was fsynced
    step_00000200.damaged/    did not match its manifest: retained, never loaded
    step_00000200.replaced/   an older attempt at the same step, until the new one has the name; restored after a kill
    step_00000100.doomed/     being removed
    latest                    the name of the newest

A folder without a suffix is complete. Partial and doomed ones are never loaded; the next save removes them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.base.progress import amount
from bigchem.config import CheckpointConfig
from bigchem.train.checkpoint.block_hashes import DIGEST, TAG, digest_of, has_digest

FORMAT, FORMER = 3, 2
"""The former format has the SHA-256 of whole files."""
MAX_BYTES = 1 << 28
"""Size limit of a manifest: a checkpoint of ten thousand ranks needs a hundredth of it."""
PARTIAL, DAMAGED, REPLACED, DOOMED = ".partial", ".damaged", ".replaced", ".doomed"
PROOF = "bigchem.json"
"""File in an exported model's folder: which checkpoint it is from, and the proof."""
_NAME = re.compile(r"step_\d{8,}")


class DamagedError(UserError):
    """The checkpoint's manifest is missing or unreadable."""


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's manifest.json.

    step: optimizer steps done. position: examples consumed. model: the Hugging Face configuration. probe: examples and
    the loss that the engine computed at the save; resume and export compare with it. state: the training loop's own
    state, by part ("health", "validation"), as JSON. files: {name: [bytes, digest]}, see
    block_hashes; ValueError for a name that leads out of the checkpoint, as a tampered copy could have, or a digest of
    another kind.
    """

    step: int
    position: int
    tokens: int
    world_size: int
    zero_stage: int
    precision: Literal["fp32", "bf16", "fp16"]
    optimizer: str
    data_fingerprint: str
    model: dict[str, Any]
    probe: dict[str, Any]
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, (_, digest) in self.files.items():
            path = PurePosixPath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts or not DIGEST.fullmatch(digest):
                raise ValueError(f"files: {name!r}")

    @staticmethod
    def read(checkpoint: Path) -> Manifest:
        """The manifest of a published checkpoint. DamagedError if it is missing, unreadable or malformed; UserError if
        another version wrote it."""
        file = checkpoint / "manifest.json"
        try:
            table = json_file.load_object(file, max_bytes=MAX_BYTES)
            if table.pop("format") not in (FORMAT, FORMER):
                raise UserError("written by another version", str(file))
            manifest = TypeAdapter(Manifest).validate_json(json.dumps(table), strict=True)
            manifest._check_probe()
            return manifest
        except FileNotFoundError:
            raise DamagedError("no checkpoint here: manifest.json is missing", str(checkpoint)) from None
        except OSError as error:
            raise DamagedError(f"manifest.json cannot be read: {error.strerror or error}", str(checkpoint)) from None
        except RecordError as error:
            raise DamagedError(f"not a manifest: {error.what}", str(file)) from None
        except ValidationError as error:
            first = error.errors()[0]
            reason = ": ".join(map(str, (*first["loc"], first["msg"])))
            raise DamagedError(f"not a manifest: {reason}", str(file)) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"not a manifest: {error!r}", str(file)) from None

    def _check_probe(self) -> None:
        """Raises ValueError, KeyError or TypeError unless the probe has a loss and examples within the vocabulary."""
        sources, targets, vocabulary = self.probe["sources"], self.probe["targets"], self.model["vocab_size"]
        rows = [*sources, *targets]
        if not sources or len(sources) != len(targets) or not all(rows) or not isinstance(self.probe["loss"], float):
            raise ValueError("probe")
        if not all(isinstance(token, int) and 0 <= token < vocabulary for row in rows for token in row):
            raise ValueError("probe: a token is outside the vocabulary")

    @property
    def by_blocks(self) -> bool:
        """Whether part of a file can be verified."""
        return all(digest.startswith(TAG) for _, digest in self.files.values())

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(size for size, _ in self.files.values())

    def refuse_unless(self, checkpoint: Path, fingerprint: str, precision: str, optimizer: str) -> None:
        """UserError if the checkpoint cannot be resumed on this data, in this precision, with this optimizer."""
        if self.data_fingerprint != fingerprint:
            raise UserError(
                f"trained on data {self.data_fingerprint}, the data now is {fingerprint}",
                str(checkpoint),
                "restore the data, or give the run another name",
            )
        if self.precision != precision and "fp16" in (self.precision, precision):
            raise UserError(
                f"saved in {self.precision}, this job has {precision}",
                str(checkpoint),
                "resume in the same precision, or give the run another name",
            )
        if self.optimizer != optimizer:
            raise UserError(
                f"saved by the optimizer {self.optimizer}, this job has {optimizer}",
                str(checkpoint),
                f"set optimizer.kind = '{self.optimizer}', or give the run another name",
            )

    def damage(
        self,
        checkpoint: Path,
        share: int = 0,
        shares: int = 1,
        *,
        progress: Callable[[int], object] = lambda size: None,
        hashes: bool = True,
    ) -> str | None:
        """The first mismatch between the files and the manifest's sizes and hashes; None if there is none.

        share of shares: check only this part of the files; several processes check the whole together. An unreadable
        file counts as damage instead of raising, as the other processes would not see the error. progress: called with
        the bytes read since its last call. hashes: False compares sizes only.
        """
        loads = [0] * shares
        for name, (size, digest) in sorted(self.files.items(), key=lambda file: -file[1][0]):
            mine = loads.index(min(loads))
            loads[mine] += size
            path = checkpoint / name
            if mine != share:
                continue
            try:
                if not path.is_file():
                    return f"{name} is missing"
                if path.stat().st_size != size or (hashes and not has_digest(path, digest, progress)):
                    return f"{name} differs from its manifest"
            except OSError as error:
                return f"{name} cannot be read: {error.strerror or error}"
        return None


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step_{step:08d}"


def folders(checkpoints: Path) -> list[Path]:
    """Folders with a complete checkpoint's name, oldest first."""
    return sorted(p for p in checkpoints.glob("step_*") if _NAME.fullmatch(p.name) and p.is_dir())


def published(checkpoints: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return [p for p in folders(checkpoints) if (p / "manifest.json").is_file()]


def latest(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = published(checkpoints)
    return found[-1] if found else None


def newest_readable(checkpoints: Path) -> tuple[Path, Manifest] | None:
    """The newest checkpoint with a readable manifest: the one a job will most likely resume from."""
    for path in reversed(published(checkpoints)):
        try:
            return path, Manifest.read(path)
        except DamagedError:
            continue
    return None


def publish(
    checkpoints: Path, partial: Path, manifest: Manifest, written: Mapping[Path, tuple[int, str]] | None = None
) -> Path:
    """Turns a folder that all ranks have written into a checkpoint. Rank 0 only, after a barrier.

    written: sizes and hashes of files already on disk; other files are hashed and fsynced here. UserError if rank 0
    does not see one of them as written: the ranks do not share the folder. Errors after the rename are only logged.
    """
    known = dict(written or {})
    for path, (size, _) in known.items():
        if (visible := _size(path)) != size:
            raise UserError(
                f"{path.name} was written with {size:,} bytes, rank 0 "
                + ("does not see it" if visible is None else f"sees {visible:,}"),
                str(partial),
                "set `runs` to a folder that all nodes share",
            )
    for path in partial.rglob("*"):
        if path not in known:
            atomic.fsync(path)
        if path not in known and path.is_file():
            known[path] = (path.stat().st_size, digest_of(path))
    listed = {str(path.relative_to(partial)): known[path] for path in sorted(known)}
    table = {"format": FORMAT, **asdict(manifest), "files": listed}
    atomic.write_atomically(partial / "manifest.json", json.dumps(table, indent=1))  # fsyncs the folder too
    final = checkpoints / step_name(manifest.step)
    _settle_replaced(checkpoints)
    if final.exists():  # an older attempt at the same step
        final.rename(final.with_name(final.name + REPLACED))
    partial.rename(final)
    try:
        atomic.fsync(checkpoints)
        atomic.write_atomically(checkpoints / "latest", final.name + "\n")
        _settle_replaced(checkpoints)
    except OSError as error:
        print(f"{final.name} is published, but `latest` was not updated: {error.strerror or error}", flush=True)
    return final


def _size(path: Path) -> int | None:
    """Bytes of a file, None if it is missing. It is opened because NFS then asks the server instead of its cache."""
    try:
        with path.open("rb") as file:
            return file.seek(0, 2)
    except FileNotFoundError:
        return None


def _settle_replaced(checkpoints: Path) -> None:
    """Dooms an older attempt if the new one has its name; restores it if a kill came before that."""
    for old in checkpoints.glob(f"step_*{REPLACED}"):
        final = old.with_suffix("")
        old.rename(_unused(final, DOOMED) if final.exists() else final)


def set_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint out of the way; `latest` then names the one before it."""
    aside = checkpoint.rename(_unused(checkpoint, DAMAGED))
    repair_latest(checkpoint.parent)
    atomic.fsync(checkpoint.parent)
    return aside


def damaged(checkpoints: Path) -> list[Path]:
    """Checkpoints set aside as damaged, oldest first."""
    return sorted(p for p in checkpoints.glob(f"step_*{DAMAGED}*") if p.is_dir())


def repair_latest(checkpoints: Path) -> str | None:
    """Points `latest` at the newest checkpoint. Returns the name it held if that checkpoint is missing. Before that, a
    checkpoint whose replacement was killed gets its name back."""
    _settle_replaced(checkpoints)
    file, newest = checkpoints / "latest", latest(checkpoints)
    named = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else None
    if named == (None if newest is None else newest.name):
        return None
    if newest is None:
        file.unlink()
    else:
        atomic.write_atomically(file, newest.name + "\n")
    return named if named is None or not (named and (checkpoints / named).is_dir()) else None


def superseded(steps: Collection[int], config: CheckpointConfig, best: int | None = None) -> list[int]:
    """Steps of the checkpoints to remove: all but the newest `keep`, multiples of `keep_every`, and `best`."""
    older = sorted(steps)[: -config.keep]
    return [s for s in older if not (config.keep_every and s % config.keep_every == 0) and s != best]


def doom_superseded(
    checkpoints: Path, config: CheckpointConfig, best: int | None = None, in_use: Collection[Path] = ()
) -> None:
    """Renames superseded checkpoints to .doomed before their removal, so that a kill during it leaves none that looks
    complete.

    best: step of a checkpoint that is never removed. in_use: checkpoints being read, left for the next call.
    """
    by_step = {step_of(path): path for path in published(checkpoints)}
    for step in superseded(by_step, config, best):
        if by_step[step] not in in_use:
            by_step[step].rename(_unused(by_step[step], DOOMED))


def remove_doomed(checkpoints: Path) -> None:
    """Removes partial and doomed checkpoints."""
    for suffix in (PARTIAL, DOOMED):
        for path in checkpoints.glob(f"step_*{suffix}*"):
            shutil.rmtree(path, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step_"))


def disk_room(checkpoints: Path) -> tuple[int, int]:
    """(free bytes, bytes that the next checkpoint needs: the newest one's size, 0 if there is none)."""
    newest = newest_readable(checkpoints)
    existing = next(p for p in (checkpoints, *checkpoints.parents) if p.exists())
    return shutil.disk_usage(existing).free, 0 if newest is None else newest[1].bytes


def disk_warning(checkpoints: Path) -> str | None:
    """A warning with the numbers if the next checkpoint will not fit; else None."""
    free, needed = disk_room(checkpoints)
    if free >= needed:
        return None
    return f"disk nearly full: {amount(free)} free in {checkpoints}, the last checkpoint took {amount(needed)}"


def _unused(path: Path, suffix: str) -> Path:
    """An unused name beside `path`."""
    names = (path.with_name(f"{path.name}{suffix}{i or ''}") for i in range(1000))
    return next(name for name in names if not name.exists())
