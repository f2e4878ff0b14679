"""Chooses a field, such as the learning rate, for each size and mixture by the validation loss of short runs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.runs.status import last_row
from bigchem.run.log_files import has_diverged
from bigchem.sweep.grid import Choice, Choices, GridConfig, Point, SelectConfig, expand

LAST_STEP_ONLY = 10**9
"""validation.every of the short runs: a run's last step is always validated."""


def stages(grid: GridConfig, say: Callable[[str], None] = lambda line: None) -> Iterator[list[RunConfig]]:
    """The runs of a sweep in the order in which they can be trained: with `select`, the short runs, those of further
    values, and then the others, each if the ones before are done by the time that it is asked for. UserError if no
    value has a finite loss."""
    if grid.select is None:
        yield expand(grid)
        return
    known = -1
    while len(runs := candidates(grid, grid.select)) > known:
        known = len(runs)
        yield [run for run in runs if not has_diverged(run.run_dir)]
    found = choices(grid, grid.select)
    if found is None:
        say("the other runs follow when these are done: the same command submits them")
        return
    say(summary(grid.select, found))
    yield expand(grid, found)


def is_short(grid: GridConfig, run: RunConfig) -> bool:
    """Whether a run is one of the short ones, which may diverge: then its value is not chosen."""
    return run.sweep.name != grid.name


def planned_runs(grid: GridConfig) -> list[RunConfig]:
    """All runs. Until values are chosen, the first one stands in for them."""
    return [*(candidates(grid, grid.select) if grid.select else ()), *full_runs(grid)]


def full_runs(grid: GridConfig) -> list[RunConfig]:
    """All runs but the short ones of `select`. Until values are chosen, the first one stands in for them."""
    return expand(grid, choices(grid, grid.select) if grid.select else None)


def candidates(grid: GridConfig, select: SelectConfig) -> list[RunConfig]:
    """The short runs, with the sweep's first seed, in the folder SWEEP-select. They are not evaluated. With `extend`,
    as many as the losses known by now call for."""
    return [run for runs in _tried(grid, select).values() for run in runs.values()]


def choices(grid: GridConfig, select: SelectConfig) -> Choices | None:
    """The value with the lowest validation loss, or a lower value within `tolerance` of it, for each size and mixture;
    None while a short run is not done."""
    found = {}
    for point, runs in _tried(grid, select).items():
        losses = _losses(runs)
        if losses is None:
            return None
        found[point] = _best(losses, select.tolerance, f"sweep {grid.name}: {' '.join(point)}")
    return found


def _tried(grid: GridConfig, select: SelectConfig) -> dict[Point, dict[float, RunConfig]]:
    """The short runs of each size and mixture, by value. A value at an end is followed by the next one beyond it if it
    has the lowest loss of all."""
    runs = iter(_short_runs(grid, select, select.values))
    found = {point: {value: next(runs) for value in select.values} for point in grid.points}
    for point, tried in found.items():
        for _ in range(select.extend):
            losses = _losses(tried)
            if losses is None or (further := _beyond(losses)) is None:
                break
            (tried[further],) = _short_runs(grid, select, [further], point)
    return found


def _beyond(losses: Mapping[float, float]) -> float | None:
    """The value after the best one if that is at an end, by the ratio of the last two there; None if it is inside, or
    if no loss is finite."""
    values, best = sorted(losses), min(losses, key=lambda one: losses[one])
    if not math.isfinite(losses[best]) or best not in (values[0], values[-1]):
        return None
    end, before = (values[0], values[1]) if best == values[0] else (values[-1], values[-2])
    return float(f"{end * end / before:.6g}")


def _short_runs(
    grid: GridConfig, select: SelectConfig, values: Sequence[float], only: Point | None = None
) -> list[RunConfig]:
    """The short runs of all points or one, value by value. UserError if they would be chosen on the test split."""
    only_last = {"evaluate.at_end": False, "validation.every": LAST_STEP_ONLY, "validation.patience": 0}
    sets = toml.flat(grid.base_set) | only_last | {"validation.keep_best": False, "validation.samples": 0}
    sets = {name: value for name, value in sets.items() if name not in _lengths(select)}
    update = {
        "name": f"{grid.name}-select",
        "base_set": sets | toml.flat(select.set),
        "seeds": grid.seeds[:1],
        "axes": {select.field: list(values)},
        "select": None,
    }
    runs = expand(grid.model_copy(update=update), only=only)
    for run in runs:
        if run.validation.split == "test":
            raise UserError("select would choose on the test split", f"sweep {grid.name}", "validation.split = 'valid'")
    return runs


def summary(select: SelectConfig, found: Choices) -> str:
    """A line for each size and mixture. Says where the best value is the lowest or the highest."""
    lines = []
    for (size, mixture), choice in found.items():
        tried = ", ".join(f"{value}: {loss:.4f}" for value, loss in choice.losses.items())
        hint = "; at the edge of the values tried: extend select.values, or raise select.extend"
        lines.append(
            f"{size} {mixture}: {select.field} = {choice.value:g} (validation loss {tried}{hint * choice.at_end})"
        )
    return "\n".join(lines)


def _lengths(select: SelectConfig) -> set[str]:
    """Fields of base_set that the short runs' own length replaces."""
    both = {"train.steps", "train.tokens"}
    return both if both & toml.flat(select.set).keys() else set()


def _losses(runs: Mapping[float, RunConfig]) -> dict[float, float] | None:
    """Validation losses after the last step; infinite where it is not a number, and of a run that has diverged; None if
    a run is not done."""
    found = {}
    for value, config in runs.items():
        row, _ = last_row(config.run_dir / "metrics.jsonl")
        if row.get("step") == config.train.steps:
            found[value] = row.get("valid_loss", math.inf)
        elif has_diverged(config.run_dir):
            found[value] = math.inf
        else:
            return None
    return found


def _best(tried: dict[float, float], tolerance: float, where: str) -> Choice:
    best = min(tried, key=lambda one: tried[one])
    if not math.isfinite(tried[best]):
        raise UserError("no value has a finite validation loss", where, "try lower values in select.values")
    value = min(one for one, loss in tried.items() if loss <= tried[best] + tolerance * abs(tried[best]))
    finite = {f"{one:g}": loss for one, loss in sorted(tried.items()) if math.isfinite(loss)}
    return Choice(value, finite, at_end=best in (min(tried), max(tried)))
