"""Checks that checkpoints match their manifests and belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from bigchem.base.errors import UserError
from bigchem.base.progress import Bar, Progress
from bigchem.export.weights import read_ahead
from bigchem.train.checkpoint.store import Manifest


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
    """UserError that names the first file that differs from the manifest, by hash (`workers` threads) or by size."""
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
