"""Chooses a field, such as the learning rate, for each size and mixture by the validation loss of short runs."""

import math
from collections.abc import Callable, Iterator
from itertools import product

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.runs.status import last_row
from bigchem.sweep.grid import Choice, Choices, GridConfig, SelectConfig, expand

LAST_STEP_ONLY = 10**9
"""validation.every of the short runs: a run's last step is always validated."""


def stages(grid: GridConfig, say: Callable[[str], None] = lambda line: None) -> Iterator[list[RunConfig]]:
    """The runs of a sweep in the order in which they can be trained: with `select`, the short runs, and then the others
    if all short ones are done by the time that they are asked for. UserError if no value has a finite loss."""
    if grid.select is None:
        yield expand(grid)
        return
    yield candidates(grid, grid.select)
    found = choices(grid, grid.select)
    if found is None:
        say("the other runs follow when these are done: the same command submits them")
        return
    say(summary(grid.select, found))
    yield expand(grid, found)


def known_runs(grid: GridConfig) -> list[RunConfig]:
    """All runs that can be trained by now."""
    return [config for stage in stages(grid) for config in stage]


def planned_runs(grid: GridConfig) -> list[RunConfig]:
    """All runs. Until values are chosen, the first one stands in for them."""
    return [*(candidates(grid, grid.select) if grid.select else ()), *full_runs(grid)]


def full_runs(grid: GridConfig) -> list[RunConfig]:
    """All runs but the short ones of `select`. Until values are chosen, the first one stands in for them."""
    return expand(grid, choices(grid, grid.select) if grid.select else None)


def candidates(grid: GridConfig, select: SelectConfig) -> list[RunConfig]:
    """The short runs, with the sweep's first seed, in the folder SWEEP-select. They are not evaluated."""
    only = {"evaluate.at_end": False, "validation.every": LAST_STEP_ONLY, "validation.patience": 0}
    sets = toml.flat(grid.base_set) | only | {"validation.keep_best": False, "validation.samples": 0}
    sets = {name: value for name, value in sets.items() if name not in _lengths(select)}
    update = {
        "name": f"{grid.name}-select",
        "base_set": sets | toml.flat(select.set),
        "seeds": grid.seeds[:1],
        "axes": {select.field: list(select.values)},
        "select": None,
    }
    runs = expand(grid.model_copy(update=update))
    for run in runs:
        if run.validation.split == "test":
            raise UserError("select would choose on the test split", f"sweep {grid.name}", "validation.split = 'valid'")
    return runs


def choices(grid: GridConfig, select: SelectConfig) -> Choices | None:
    """The value with the lowest validation loss for each size and mixture; None while a short run is not done."""
    losses: dict[tuple[str, str], dict[float, float]] = {}
    runs = iter(candidates(grid, select))
    for point, value in product(grid.points, select.values):
        loss = _loss(next(runs))
        if loss is None:
            return None
        losses.setdefault(point, {})[value] = loss
    return {point: _best(tried, f"sweep {grid.name}: {' '.join(point)}") for point, tried in losses.items()}


def summary(select: SelectConfig, found: Choices) -> str:
    """A line for each size and mixture. Says where the best value is the lowest or the highest."""
    lines = []
    for (size, mixture), choice in found.items():
        tried = ", ".join(f"{value}: {loss:.4f}" for value, loss in choice.losses.items())
        edge = choice.value in (min(select.values), max(select.values))
        hint = "; at the edge of the values tried: extend select.values" if edge else ""
        lines.append(f"{size} {mixture}: {select.field} = {choice.value:g} (validation loss {tried}{hint})")
    return "\n".join(lines)


def _lengths(select: SelectConfig) -> set[str]:
    """Fields of base_set that the short runs' own length replaces."""
    both = {"train.steps", "train.tokens"}
    return both if both & toml.flat(select.set).keys() else set()


def _loss(config: RunConfig) -> float | None:
    """Validation loss after the last step; infinite if it is not a number; None if the run is not done."""
    row, _ = last_row(config.run_dir / "metrics.jsonl")
    return row.get("valid_loss", math.inf) if row.get("step") == config.train.steps else None


def _best(tried: dict[float, float], where: str) -> Choice:
    value = min(tried, key=lambda one: tried[one])
    if not math.isfinite(tried[value]):
        raise UserError("no value has a finite validation loss", where, "try lower values in select.values")
    return Choice(value, {f"{one:g}": loss for one, loss in tried.items() if math.isfinite(loss)})
