"""Which checkpoints of a run are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.best import chosen, kept_step
from bigchem.train.checkpoint.store import PARTIAL, Manifest, latest, published, step_name, step_of

Which = int | Literal["best", "latest"] | None
"""A step; the best that the run keeps; the newest; None: the best where one is kept, else the newest."""


def read_which(text: str) -> Which:
    """What `--step` says; UserError unless it is a step, best or latest."""
    if text in ("best", "latest"):
        return cast(Which, text)
    if not text.isascii() or not text.isdigit():
        raise UserError(f"'{text}' is no step", "--step", "a number of steps, best, or latest")
    return int(text)


def find_checkpoints(source: Path, which: Which = None, average: int = 1) -> tuple[list[Path], Path]:
    """(checkpoints, oldest first; run folder) for a run folder or a checkpoint folder.

    average: that many, the last one being the chosen one; without a choice the newest. UserError if they are not there.
    """
    if (source / "manifest.json").is_file():
        if which is not None:
            raise UserError("is one checkpoint already", str(source), "leave --step, or give the run folder")
        last, run_dir = source, source.resolve().parent.parent
    else:
        _refuse_what_is_none(source)
        last, run_dir = _of_run(source, "latest" if which is None and average > 1 else which), source
    there = [path for path in published(last.parent) if path.name < last.name][-(average - 1) :] if average > 1 else []
    if len(there) + 1 < average:
        what = f"only {len(there) + 1} checkpoints up to step {step_of(last)}, {average} are to be averaged"
        raise UserError(what, str(last.parent), "average fewer; checkpoint.keep says how many a run keeps")
    return [*there, last], run_dir


def _of_run(run_dir: Path, which: Which) -> Path:
    checkpoints = run_dir / "checkpoints"
    newest = latest(checkpoints)
    if newest is None:
        raise UserError("no published checkpoint", str(run_dir), "give a run folder or a folder checkpoints/step_N")
    if which is None:
        return chosen(checkpoints) or newest
    if which == "latest":
        return newest
    if which == "best":
        step = kept_step(Manifest.read(newest).state)
        if step is None:
            raise UserError("keeps no best checkpoint", str(run_dir), "set validation.every, or take --step latest")
        which = step
    found = checkpoints / step_name(which)
    if not (found / "manifest.json").is_file():
        steps = ", ".join(str(step_of(path)) for path in published(checkpoints))
        raise UserError(f"no checkpoint after step {which}", str(run_dir), f"there are those after step {steps}")
    return found


def _refuse_what_is_none(source: Path) -> None:
    """UserError for a folder of DeepSpeed's that bigchem did not publish."""
    inside = [*source.glob("*_states.pt"), *source.glob("*/*_states.pt")]
    if source.name.endswith(PARTIAL):
        raise UserError("is not complete: its job is writing it, or was stopped", str(source), "take a published one")
    if inside and not (source / "checkpoints").is_dir():
        raise UserError(
            "DeepSpeed's, but not published by bigchem: there is no manifest.json",
            str(inside[0].parent),
            "its zero_to_fp32.py makes pytorch_model.bin; with a config.json beside that, model.init_from reads it",
        )
