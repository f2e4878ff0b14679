"""Runs that differ by an axis of their sweep: one value for the claim, all of them for the axis (PURE)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bigchem.base.errors import UserError
from bigchem.sweep.scores.mixtures import shares
from bigchem.sweep.scores.records import Run, Score

MIXTURE = "mixture"
"""The axis of shared models that were trained on the same tasks with other weights."""

ALONE = "alone"
"""The axis of runs of one task that were matched with the shared run in several ways."""

FLOPS = "flops"
"""The axis of runs of every size with equal FLOPs: their lengths differ by design."""
LARGE = 1e6
"""Numbers from here on are written as 4e+12, if that is all of them."""


def setting(run: Run, axis: str) -> str | None:
    """The run's value on an axis, as text; None if its sweep had no such axis."""
    if axis == MIXTURE:
        return shares(run.mixture) if run.regime == "together" and run.mixture else None
    if axis == ALONE:
        return run.training.alone or "by hand" if run.regime == "alone" and run.training is not None else None
    axes = run.training.axes if run.training is not None else {}
    return _text(axes[axis]) if axis in axes else None


def _text(value: Any) -> str:
    if isinstance(value, float) and abs(value) >= LARGE and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def choose(scores: Sequence[Score], at: Sequence[str] = ()) -> tuple[list[Score], dict[str, list[Score]]]:
    """The scores at one value of every axis; and by axis, where it has several values, those of all of them, with the
    other axes at their chosen values.

    at: AXIS=VALUE. Runs whose sweep had no such axis stay, whatever is chosen. UserError for an axis of several values
    of which none is chosen, and for what no run has.
    """
    runs = list({id(s.run): s.run for s in scores}.values())
    found = _axes(runs)
    chosen = _parsed(at, found)
    for axis, values in found.items():
        if len(values) > 1 and axis not in chosen:
            first, second, *_ = values.values()
            raise UserError(
                f"runs differ by {axis}: {'; '.join(values)}",
                f"{first.source} and {second.source}",
                f"choose the one that the claim is about, such as --at '{axis}={next(iter(values))}'; "
                "the others are drawn against it",
            )

    def fits(run: Run, free: str = "") -> bool:
        others = (axis for axis in chosen if axis != free and setting(run, axis) in found[axis])
        return all(setting(run, axis) == chosen[axis] for axis in others)

    kept = [s for s in scores if fits(s.run)]
    if not kept:
        raise UserError(f"no run has {', '.join(at)}", "--at", "choose values that were combined")
    varied = {axis: values for axis, values in found.items() if len(values) > 1}
    by_axis = {
        axis: [s for s in scores if setting(s.run, axis) in values and fits(s.run, axis)]
        for axis, values in varied.items()
    }
    return kept, by_axis


def by_setting(scores: Iterable[Score], axis: str) -> dict[str, list[Score]]:
    """The scores of each value of an axis, which all their runs have."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(str(setting(score.run, axis)), []).append(score)
    return groups


def axes_note(by_axis: Mapping[str, Sequence[Score]], scores: Sequence[Score]) -> list[str]:
    """Says of which value of each axis the claim is."""
    notes = []
    for axis, found in by_axis.items():
        used = {setting(s.run, axis) for s in scores}
        values = by_setting(found, axis)
        chosen, others = ("; ".join(v for v in values if (v in used) == kept) for kept in (True, False))
        notes.append(f"The claim is about {axis} = {chosen}; not in it, but drawn against {axis}: {others}.")
    return notes


def _axes(runs: Sequence[Run]) -> dict[str, dict[str, Run]]:
    """Axis -> its values, each with its first run. Mixtures are an axis where some have the same tasks, and ways of
    matching runs alone where some task has several."""
    found: dict[str, dict[str, Run]] = {}
    for run in runs:
        for axis in run.training.axes if run.training is not None else ():
            found.setdefault(axis, {}).setdefault(setting(run, axis) or "", run)
    for axis in (MIXTURE, ALONE):
        by_tasks: dict[frozenset[str], dict[str, Run]] = {}
        for run in runs:
            if (value := setting(run, axis)) is not None:
                by_tasks.setdefault(frozenset(run.mixture), {}).setdefault(value, run)
        most = max(by_tasks.values(), key=len, default={})
        if len(most) > 1:
            found[axis] = most
    return found


def _parsed(at: Sequence[str], found: Mapping[str, Mapping[str, Run]]) -> dict[str, str]:
    chosen = {}
    for text in at:
        axis, sign, value = text.partition("=")
        if not sign or axis not in found:
            known = ", ".join(found) or "the runs have none"
            raise UserError(f"'{text}' names no axis of the runs", "--at", f"write AXIS=VALUE; axes: {known}")
        match = next((known for known in found[axis] if known == value or _equal(known, value)), None)
        if match is None:
            raise UserError(f"no run has {axis} = {value}", "--at", f"values: {'; '.join(found[axis])}")
        chosen[axis] = match
    return chosen


def _equal(known: str, value: str) -> bool:
    """Whether both are the same number."""
    try:
        return float(known) == float(value)
    except ValueError:
        return False
