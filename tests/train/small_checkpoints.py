"""Checkpoints of one small file, and a record of what happens to the disk while one is published."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bigchem.config import CheckpointConfig
from bigchem.train.checkpoint.store import Manifest, doom_superseded, remove_doomed, step_name


def clean(checkpoints: Path, config: CheckpointConfig, **options: Any) -> None:
    """Removes what is superseded, at once."""
    doom_superseded(checkpoints, config, **options)
    remove_doomed(checkpoints)


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step,
        position=10 * step,
        tokens=100 * step,
        world_size=2,
        zero_stage=2,
        precision="fp32",
        optimizer="adamw",
        data_fingerprint="f" * 16,
        model={"vocab_size": 2},
        probe={"sources": [[1]], "targets": [[1]], "loss": 1.0},
    )


def written(checkpoints: Path, step: int) -> Path:
    """A checkpoint's files, not yet published."""
    partial = checkpoints / (step_name(step) + ".partial")
    partial.mkdir(parents=True)
    (partial / "weights.pt").write_bytes(bytes(range(256)))
    return partial


def names(checkpoints: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(p.name for p in checkpoints.iterdir())


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Operations in order: "fsync NAME", "rename NAME"; temporary files appear under their final names."""
    events: list[str] = []

    def name_of(path: object) -> str:
        return re.sub(r"^\.(.*)\.[0-9a-f]+\.partial$", r"\1", Path(str(path)).name)

    def record(module: object, what: str, path_of: Callable[[Any], object]) -> None:
        real = getattr(module, what)

        def wrapped(first: Any, *rest: Any) -> Any:
            name = name_of(path_of(first))
            result = real(first, *rest)
            events.append(f"{'fsync' if what == 'fsync' else 'rename'} {name}")
            return result

        monkeypatch.setattr(module, what, wrapped)

    record(os, "fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    record(os, "rename", str)
    record(os, "replace", str)
    yield events
    monkeypatch.undo()
