"""Chooses the checkpoints of a run to export."""

from pathlib import Path
from typing import Literal, cast

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.best import best_step, chosen
from bigchem.train.checkpoint.store import PARTIAL, Manifest, latest, published, step_name, step_of

Which = int | Literal["best", "latest"] | None
"""A step; the best, if retained; the newest; None: the best if retained, else the newest."""


def read_which(text: str) -> Which:
    """Parses `--step`. UserError unless it is a step, best or latest."""
    if text in ("best", "latest"):
        return cast(Which, text)
    if not text.isascii() or not text.isdigit():
        raise UserError(f"'{text}' is not a step", "--step", "give a number of steps, best, or latest")
    return int(text)


def find_checkpoints(source: Path, which: Which = None, average: int = 1) -> tuple[list[Path], Path]:
    """(checkpoints, oldest first; run folder) for a run folder or a checkpoint folder.

    average: that many, up to the chosen one or, without a choice, the newest. UserError if there are fewer.
    """
    if (source / "manifest.json").is_file():
        if which is not None:
            raise UserError("is already a single checkpoint", str(source), "drop --step, or give the run folder")
        last, run_dir = source, source.resolve().parent.parent
    else:
        _refuse_unpublished(source)
        last, run_dir = _of_run(source, "latest" if which is None and average > 1 else which), source
    before = [path for path in published(last.parent) if path.name < last.name][-(average - 1) :] if average > 1 else []
    if len(before) + 1 < average:
        what = f"only {len(before) + 1} checkpoints up to step {step_of(last)}, cannot average {average}"
        raise UserError(what, str(last.parent), "average fewer; checkpoint.keep sets how many a run retains")
    return [*before, last], run_dir


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
        step = best_step(Manifest.read(newest).state)
        if step is None:
            raise UserError("retains no best checkpoint", str(run_dir), "set validation.every, or use --step latest")
        which = step
    found = checkpoints / step_name(which)
    if not (found / "manifest.json").is_file():
        steps = ", ".join(str(step_of(path)) for path in published(checkpoints))
        raise UserError(f"no checkpoint after step {which}", str(run_dir), f"available steps: {steps}")
    return found


def _refuse_unpublished(source: Path) -> None:
    """UserError for a DeepSpeed folder that bigchem did not publish."""
    inside = [*source.glob("*_states.pt"), *source.glob("*/*_states.pt")]
    if source.name.endswith(PARTIAL):
        raise UserError("is incomplete: a job is writing it, or was stopped", str(source), "use a published one")
    if inside and not (source / "checkpoints").is_dir():
        raise UserError(
            "a DeepSpeed checkpoint, not published by bigchem: manifest.json is missing",
            str(inside[0].parent),
            "its zero_to_fp32.py makes pytorch_model.bin; model.init_from reads that with a config.json beside it",
        )
