"""Whether the models of an analysis were trained with equal budgets: refusals, caveats and notes (PURE).

Compared within a regime and mixture, across sizes and seeds. Between the regimes budgets differ by design, and a note
says how.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bigchem.base.errors import UserError
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.records import Run, Training

ALLOW = "--allow-unequal-budgets"
SHOWN = 3
"""Differences that a caveat lists."""
NEAR = 1.05
"""Ratio up to which token counts of runs without a record pass for equal: steps are not filled to the last token."""
WHY = {
    "examples": "a task is seen as often alone as together, so a gain is what the other tasks' data add, "
    "at the price of their tokens and FLOPs",
    "tokens": "alone, all tokens are the task's own, so a gain means that other tasks' data are worth more to it than "
    "more of its own",
    "compute": "alone, all FLOPs go to the task, so a gain means that at equal cost other tasks' data are worth "
    "more to it than more of its own",
}
"""What a gain means, by how a sweep matched alone with together (`alone` in its file)."""


@dataclass(frozen=True)
class Difference:
    """Two runs that should not be compared. files: theirs."""

    what: str
    files: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class _Field:
    """Something that must be equal. names: fields of the run configuration with which a sweep may tune it by size."""

    name: str
    value: Callable[[Training], object]
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("planned steps", lambda t: t.steps),
    _Field("tokens of a step", lambda t: t.global_tokens),
    _Field("learning rates", lambda t: t.lr, ("optimizer.lr",)),
    _Field("schedules", lambda t: t.schedule, ("schedule.",)),
    _Field("optimizers", lambda t: t.optimizer, ("optimizer.kind",)),
    _Field("dropout rates", lambda t: t.dropout, ("model.dropout",)),
    _Field("initial weights", lambda t: "pretrained" if t.pretrained else "random"),
)
_BESIDES_LENGTH = tuple(field for field in _FIELDS if field.name not in ("planned steps", "tokens of a step"))


def check(runs: Sequence[Run], *, allow_unequal: bool, lengths: bool = True) -> tuple[str, ...]:
    """Caveats on budgets. UserError for the first difference, unless allowed. lengths: whether steps and tokens of a
    step should be equal, too."""
    found = [*_unfinished(runs), *_unequal(runs, _FIELDS if lengths else _BESIDES_LENGTH)]
    if not found:
        return ()
    if not allow_unequal:
        raise UserError(found[0].what, " and ".join(found[0].files), f"{found[0].hint}, or {ALLOW}")
    listed = "; ".join(one.what for one in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (f"Budgets are not equal: {listed}{more}.",)


def besides_length(runs: Sequence[Run]) -> str | None:
    """The first difference of runs whose lengths differ by design, in anything but steps and tokens of a step."""
    return next((one.what for one in _unequal(runs, _BESIDES_LENGTH)), None)


def unfinished(run: Run) -> bool:
    """Whether a run was evaluated before its last step, and did not end early by design."""
    return next(_unfinished([run]), None) is not None


def notes(runs: Sequence[Run]) -> list[str]:
    """Sentences on unknown budgets, on what was tuned by size, and on the budgets of alone against together."""
    return [*_unknown(runs), *_tuned(runs), *_alone(runs)]


def _groups(runs: Sequence[Run]) -> list[list[tuple[Run, Training]]]:
    """Runs with a record, by mixture."""
    groups = defaultdict(list)
    for run in runs:
        if run.training is not None:
            groups[tuple(sorted(run.mixture.items()))].append((run, run.training))
    return list(groups.values())


def _name(run: Run) -> str:
    return "the shared models" if run.regime == "together" else f"{' '.join(run.mixture)} alone"


def _unfinished(runs: Sequence[Run]) -> Iterator[Difference]:
    for run in runs:
        training = run.training
        if training is None or training.steps_done is None or training.early is not None:
            continue
        if training.steps_done < training.steps:
            what = f"{run.name} is unfinished: step {training.steps_done:,} of {training.steps:,}"
            yield Difference(what, (run.source,), "`bigchem resume` the run and evaluate it again")


def _unequal(runs: Sequence[Run], fields: Sequence[_Field] = _FIELDS) -> Iterator[Difference]:
    for group in _groups(runs):
        name = _name(group[0][0])
        by_design = all(training.alone == "compute" for _, training in group)
        for field in fields:
            per_size = _is_tuned(field, group) or (by_design and field.name == "tokens of a step")
            first: dict[object, tuple[object, Run]] = {}
            for run, training in group:
                value = field.value(training)
                known, other = first.setdefault(run.parameters if per_size else None, (value, run))
                if known != value:
                    what = f"different {field.name} of {name}: {known} ({other.name}) and {value} ({run.name})"
                    yield Difference(what, (other.source, run.source), "train them with equal budgets")
                    break


def _is_tuned(field: _Field, group: Sequence[tuple[Run, Training]]) -> bool:
    """Whether the sweep chose the field for each size of the group where it differs from the rest."""
    values = defaultdict(set)
    for _, training in group:
        chosen = any(name.startswith(field.names) for name in (*training.per_size, *training.selected))
        values[chosen].add(field.value(training))
    return bool(values[True]) and len(values[False]) <= 1


def _tuned(runs: Sequence[Run]) -> Iterator[str]:
    for field in _FIELDS:
        found: dict[int, dict[object, None]] = defaultdict(dict)
        on_validation = True
        for group in _groups(runs):
            if _is_tuned(field, group):
                for run, training in group:
                    found[run.parameters][field.value(training)] = None
                    on_validation &= any(name.startswith(field.names) for name in training.selected)
        if len({value for values in found.values() for value in values}) > 1:
            by_size = (
                f"{', '.join(map(str, _ascending(values)))} at {size_name(size)}"
                for size, values in sorted(found.items())
            )
            how = "chooses {} on validation, by size and mixture" if on_validation else "sets {} by size"
            yield f"The sweep {how.format(field.name)}: {'; '.join(by_size)}."


def _ascending(values: Iterable[object]) -> list[object]:
    """Numbers by value, all else by text."""
    return sorted(values, key=lambda value: (value, "") if isinstance(value, int | float) else (math.inf, str(value)))


def _unknown(runs: Sequence[Run]) -> Iterator[str]:
    unknown = [run for run in runs if run.training is None and run.fingerprint is not None]
    if not unknown:
        return
    by_group = defaultdict(list)
    for run in unknown:
        if run.tokens:
            by_group[_name(run)].append(run.tokens)
    trained = []
    for name, tokens in by_group.items():
        span = f"from {min(tokens):,} to {max(tokens):,}" if max(tokens) > NEAR * min(tokens) else f"{max(tokens):,}"
        trained.append(f"{name} {span} tokens")
    text = f"; trained on: {', '.join(trained)}" if trained else ""
    yield f"Budgets are unknown for results without a training record: {len(unknown)} of {len(runs)} runs{text}."


def _alone(runs: Sequence[Run]) -> Iterator[str]:
    presets = {run.training.alone for run in runs if run.regime == "alone" and run.training is not None}
    for preset in sorted(str(one) for one in presets):
        which = [run for run in runs if run.regime == "alone" and run.training and str(run.training.alone) == preset]
        ratios = _ratios(which, runs)
        how = f'Alone is matched with together by "{preset}"' if preset in WHY else "Alone is matched by hand"
        meaning = f": {WHY[preset]}" if preset in WHY else ""
        measured = f" Alone had, compared with together, {ratios}." if ratios else ""
        yield f"{how}{meaning}.{measured}"


def _ratios(alone: Sequence[Run], runs: Sequence[Run]) -> str:
    """Examples of the task, tokens and FLOPs of the runs alone over those together, as text."""
    together: Mapping[int, Training] = {
        run.parameters: run.training for run in runs if run.regime == "together" and run.training is not None
    }
    found = defaultdict(list)
    for run in alone:
        own, shared = run.training, together.get(run.parameters)
        if own is None or shared is None:
            continue
        (task,) = run.mixture
        if own.examples and shared.examples and shared.examples.get(task):
            found["the examples of the task"].append(own.examples[task] / shared.examples[task])
        if own.tokens and shared.tokens:
            found["the tokens"].append(sum(own.tokens.values()) / sum(shared.tokens.values()))
        if own.flops and shared.flops:
            found["the FLOPs"].append(own.flops / shared.flops)
    return ", ".join(f"{_range(values)} times {what}" for what, values in found.items())


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
