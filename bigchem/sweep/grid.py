"""Expands a sweep's TOML into run configurations: sizes x mixtures x further axes x seeds over one base."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Annotated, Any

from pydantic import Field, model_validator

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.installed.resources import find
from bigchem.base.toml import Section
from bigchem.config import Alone, RunConfig
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.workloads.sweep import SweepRun
from bigchem.model import presets
from bigchem.sweep.alone import Matching
from bigchem.sweep.equal_flops import StepCost
from bigchem.sweep.scores.axes import FLOPS

MAX_RUNS = 10_000
BUDGET = {"train.steps", "train.tokens", "data.global_tokens", "data.micro_tokens"}
"""Fields that `alone` and `matched` set."""
LENGTH = {"train.steps", "train.tokens"}
UNKNOWN = 10**9
"""Steps of a run whose `flops` are not counted yet: longer than any schedule."""
SET_BY_GRID = ("name", "seed", "model.preset")

Overrides = dict[str, Any]
"""Dotted field of the run configuration -> value: {"train.steps" = 300}."""


class Mixture(Section):
    """One mixture of the grid."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of each task. Omitted: 1 for each task of the data."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for the runs with this mixture."""
    sizes: tuple[str, ...] = ()
    """The sizes that train on it. Omitted: all."""
    matched: Alone | None = None
    """What its runs have as many of as the run of all tasks. Omitted: for mixtures of one task, the sweep's `alone`."""


class SelectConfig(Section):
    """Chooses a field's value for each size and mixture by the validation loss of short runs."""

    field: Annotated[str, Field(pattern=r"^(optimizer\.|schedule\.|model\.dropout$)")] = "optimizer.lr"
    """Dotted field: of [optimizer] or [schedule], or model.dropout."""
    values: Annotated[tuple[int | float, ...], Field(min_length=2)]
    """Values to try."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for the short runs: {"train.steps" = 300}."""
    extend: Annotated[int, Field(ge=0, le=10)] = 0
    """How many further values to try, at most, beyond an end of `values` that turns out best: each by the ratio of the
    last two there. For each size and mixture."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chooses the lowest value whose loss exceeds the best one by at most this fraction: a longer run may diverge where
    a short one does not."""

    @model_validator(mode="after")
    def _check(self) -> SelectConfig:
        if self.extend and (min(self.values) <= 0 or list(self.values) != sorted(set(self.values))):
            raise ValueError("extend continues `values` by their ratio: they must be above zero and ascend")
        return self


class GridConfig(Section):
    """A sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the sweep and of its folder of runs."""
    base: str
    """Base run configuration: a shipped name or a path."""
    base_set: Overrides = Field(default_factory=dict)
    """Overrides for every run."""
    sizes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Presets."""
    mixtures: Annotated[dict[str, Mixture], Field(min_length=1)]
    """Mixtures by name."""
    alone: Alone | None = None
    """Give each run of one task as many `examples` of it, as many `tokens` in all, or as much `compute` as the shared
    run, in as many steps. Computed from the data, which must be built. Omitted: as the fields say."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Seeds."""
    flops: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """A further axis: training FLOPs of a run, which give each size its `train.steps`. Computed from the data,
    which must be built. Omitted: as the fields say."""
    per_size: dict[str, Overrides] = Field(default_factory=dict)
    """Overrides for the runs of one size, by preset."""
    select: SelectConfig | None = None
    """A field chosen on validation for each size and mixture, before the runs."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Further axes: dotted fields of the run configuration, each with a list of values."""
    metrics: tuple[str, ...] = ()
    """TASK:METRIC that `sweep results` and `bigchem demo` show instead of the tasks' headlines."""
    resources: dict[str, Overrides] = Field(default_factory=dict)
    """Overrides of the cluster profile for the runs of one size, by preset: nodes, gpus_per_node, time_min, ..."""
    evaluation: Overrides | None = None
    """On Slurm, evaluate each run in a separate job after training; these override the cluster profile for it.
    None: each run's own job evaluates at its end."""

    @property
    def points(self) -> list[Point]:
        """Each size with each mixture that it trains on."""
        every = product(self.sizes, self.mixtures)
        return [(size, name) for size, name in every if size in (self.mixtures[name].sizes or self.sizes)]

    def matched(self, mixture: str) -> Alone | None:
        """How a mixture's budget is matched with that of all tasks."""
        found = self.mixtures[mixture]
        return found.matched or (self.alone if len(found.weights) == 1 else None)

    @model_validator(mode="after")
    def _exclusive(self) -> GridConfig:
        if self.select is not None and (self.axes or self.flops):
            raise ValueError(
                f"select and {'axes' if self.axes else 'flops'} exclude each other: split the sweep in two"
            )
        return self


@dataclass(frozen=True)
class Choice:
    """A value of `select.field`, and the finite validation losses by tried value. at_end: no lower, or no higher value
    was tried."""

    value: float
    losses: dict[str, float]
    at_end: bool = False


Point = tuple[str, str]
"""A size and a mixture."""
Choices = Mapping[Point, Choice]


@dataclass(frozen=True)
class Axis:
    """A further axis. label: precedes the value in run names."""

    field: str
    label: str
    values: tuple[Any, ...]


def load_grid(name: str, overrides: tuple[str, ...] = ()) -> GridConfig:
    """Loads a sweep by its shipped name or path. What the file sets for sizes that `overrides` leave out is dropped."""
    file = find("recipes", name, ".toml")
    grid = toml.load(GridConfig, file, overrides)
    others = tuple(override for override in overrides if toml.parse_override(override)[0] != "sizes")
    if others == overrides:
        return grid
    return _without(grid, {*toml.load(GridConfig, file, others).sizes} - {*grid.sizes})


def _without(grid: GridConfig, sizes: set[str]) -> GridConfig:
    """The sweep without what it sets for these sizes."""
    mixtures = {}
    for name, mixture in grid.mixtures.items():
        left = tuple(size for size in mixture.sizes if size not in sizes)
        if left or not mixture.sizes:
            mixtures[name] = mixture.model_copy(update={"sizes": left})
    if not mixtures:
        raise UserError("no mixture trains on these sizes", "--set sizes", f"the sweep has {' '.join(sorted(sizes))}")
    per_size = {size: fields for size, fields in grid.per_size.items() if size not in sizes}
    resources = {size: fields for size, fields in grid.resources.items() if size not in sizes}
    return grid.model_copy(update={"mixtures": mixtures, "per_size": per_size, "resources": resources})


def load_runs(name: str, overrides: tuple[str, ...] = ()) -> list[RunConfig]:
    """The run configurations of a sweep, given its shipped name or path."""
    return expand(load_grid(name, overrides))


def expand(
    grid: GridConfig, choices: Choices | None = None, only: Point | None = None, last: Overrides | None = None
) -> list[RunConfig]:
    """Every run of a sweep, in the order of `sizes`. Later overrides win: base_set, mixture, size, last.

    choices: of a sweep with `select`; None: the first value everywhere. only: the runs of one point.
    """
    axes = _check(grid)
    base = toml.load(RunConfig, find("recipes", grid.base, ".toml")).model_dump()
    if base["train"]["tokens"] is not None:
        del base["train"]["steps"]  # derived; overrides may change it
    runs: dict[str, RunConfig] = {}
    count = math.prod([len(grid.points), len(grid.seeds), *(len(axis.values) for axis in axes)])
    if count > MAX_RUNS:
        what = f"{count:,} runs (sizes x mixtures x axes x seeds), at most {MAX_RUNS:,} are allowed"
        raise UserError(what, f"sweep {grid.name}", "split it into several sweeps")
    matched = [how for mixture in grid.mixtures if (how := grid.matched(mixture)) is not None]
    matching = {how: Matching(how, f"sweep {grid.name}") for how in matched}
    shared, cost = _shared(grid) if matching else "", StepCost(f"sweep {grid.name}")
    points = product(grid.points if only is None else [only], product(*(axis.values for axis in axes)), grid.seeds)
    make, given = partial(_run, grid, base, axes), last or {}
    for (size, mixture), values, seed in points:
        place = _Place(size, mixture, values, seed)
        first = replace(place, seed=grid.seeds[0])
        fields = given | _chosen(grid, choices, size, mixture) | _length(grid, cost, partial(make, first))
        run = make(place, fields)
        if (how := grid.matched(mixture)) is not None:
            whole = partial(make, replace(first, mixture=shared))
            fields |= matching[how].overrides(run, whole(given | _length(grid, cost, whole)))
            run = make(place, fields | {"sweep.alone": how})
        if run.name in runs:
            raise UserError(
                f"two runs would be called '{run.name}'", f"sweep {grid.name}", "choose values whose names differ"
            )
        runs[run.name] = run
    return list(runs.values())


@dataclass(frozen=True)
class _Place:
    """A run's place in the grid. values: of the axes."""

    size: str
    mixture: str
    values: tuple[Any, ...]
    seed: int


def _run(grid: GridConfig, base: dict[str, Any], axes: list[Axis], place: _Place, last: Overrides) -> RunConfig:
    """One run. last: overrides that win over all others."""
    where, table, size = f"sweep {grid.name}", deepcopy(base), place.size
    on_axes = {axis.field: value for axis, value in zip(axes, place.values, strict=True)}
    for overrides in (grid.base_set, grid.mixtures[place.mixture].set, grid.per_size.get(size, {})):
        for field, value in toml.flat(overrides).items():
            toml.put_instead(RunConfig, table, field, value, where)
    for field, value in on_axes.items():
        if field != FLOPS:
            toml.put_instead(RunConfig, table, field, value, where)
    labels = [axis.label + _in_name(value, axis.field) for axis, value in zip(axes, place.values, strict=True)]
    table["runs"] = f"{table['runs']}/{grid.name}"
    table["name"] = name = "-".join([size.removeprefix("sweep-"), place.mixture, *labels, f"s{place.seed}"])
    table["seed"] = place.seed
    table["model"]["preset"] = size
    table["data"]["mixture"] = grid.mixtures[place.mixture].weights
    table["sweep"] = {"name": grid.name, "axes": on_axes, "per_size": sorted(toml.flat(grid.per_size.get(size, {})))}
    for field, value in last.items():
        toml.put_instead(RunConfig, table, field, value, where)
    return toml.validate(RunConfig, table, f"{where}: {name}")


def _length(grid: GridConfig, cost: StepCost, make: Callable[[Overrides], RunConfig]) -> Overrides:
    """The steps that `flops` gives a run; nothing without. make: the run with overrides."""
    if not grid.flops:
        return {}
    run = make({"train.steps": UNKNOWN})
    return {"train.steps": cost.steps(run, run.sweep.axes[FLOPS])}


def _chosen(grid: GridConfig, choices: Choices | None, size: str, mixture: str) -> Overrides:
    """The overrides of `select` for a size and mixture."""
    if grid.select is None:
        return {}
    field, values = grid.select.field, grid.select.values
    choice = Choice(values[0], {}) if choices is None else choices[size, mixture]
    return {field: choice.value, "sweep.selected": {field: choice.losses}}


def _shared(grid: GridConfig) -> str:
    """The mixture that others are matched with: the only one of several tasks that is not matched itself, or of several
    such that of all tasks. UserError without one, or if a mixture that is matched sets its own budget."""
    where, (name, how) = f"sweep {grid.name}", next((n, how) for n in grid.mixtures if (how := grid.matched(n)))
    what = f"alone = '{how}'" if grid.mixtures[name].matched is None else f"mixtures.{name}.matched = '{how}'"
    shared = [name for name, mixture in grid.mixtures.items() if len(mixture.weights) != 1 and not mixture.matched]
    tasks = {task for mixture in grid.mixtures.values() for task in mixture.weights}
    whole = [name for name in shared if tasks <= (grid.mixtures[name].weights.keys() or tasks)]
    if 1 not in (len(shared), len(whole)):
        hint = "split it into sweeps with one each, or set the budgets in each mixture's `set`"
        problem = f"needs one mixture of several tasks, or one of all tasks among them; there are {len(shared)}"
        raise UserError(f"{what} {problem}", where, hint)
    for name, mixture in grid.mixtures.items():
        if grid.matched(name) and (own := BUDGET & toml.flat(mixture.set).keys()):
            raise UserError(f"{what}, and mixtures.{name}.set sets {min(own)} too", where, "remove one of them")
    return shared[0] if len(shared) == 1 else whole[0]


def sweep_runs(
    grid: GridConfig, profile: ClusterProfile, asked: Iterable[str] = (), configs: Sequence[RunConfig] | None = None
) -> list[SweepRun]:
    """Every run of a sweep, or those given, with its size's resources and its evaluation's.

    asked: profile fields given for this submission; UserError if the sweep sets one of them too.
    """
    where, given = f"sweep {grid.name}", set(asked)
    for size, fields in grid.resources.items():
        if both := sorted(given & toml.flat(fields).keys()):
            hint = f"--set resources.{size}.{both[0]}=VALUE, or remove it there"
            raise UserError(f"resources.{size} already sets {both[0]}", where, hint)
    profiles = {n: _with(profile, grid.resources.get(n, {}), f"{where}: resources.{n}") for n in grid.sizes}
    evaluation = None if grid.evaluation is None else _with(profile, grid.evaluation, f"{where}: evaluation")
    configs = expand(grid) if configs is None else configs
    return [SweepRun(config, profiles[config.model.preset], evaluation) for config in configs]


def _with(profile: ClusterProfile, fields: Overrides, where: str) -> ClusterProfile:
    for field in ("executor", "max_concurrent"):
        if field in fields:
            raise UserError(f"'{field}' is the same for all runs of a sweep", where, "set it in the cluster profile")
    gpus = fields.get("gpus_per_node")
    table = profile.model_dump()
    if isinstance(gpus, int):
        table["tasks_per_node"] = max(1, gpus)  # one process per GPU
    if "nodes" in fields:
        table["nodes_max"] = None
    for field, value in toml.flat(fields).items():
        toml.put(table, field, value, where)
    return toml.validate(ClusterProfile, table, where)


def _check(grid: GridConfig) -> list[Axis]:
    """The further axes; UserError if the grid contradicts itself."""
    where = f"sweep {grid.name}"
    _check_points(grid, where)
    axes = toml.flat(grid.axes) | ({FLOPS: list(grid.flops)} if grid.flops else {})
    overrides = {"base_set": grid.base_set}
    overrides |= {f"mixtures.{name}.set": mixture.set for name, mixture in grid.mixtures.items()}
    overrides |= {f"per_size.{name}": fields for name, fields in grid.per_size.items()}
    _refuse_lengths(grid, {**overrides, "axes": axes}, where)
    for name, fields in [*overrides.items(), ("axes", axes)]:
        for field in toml.flat(fields):
            if field in SET_BY_GRID or field.startswith(("data.mixture", "sweep.")):
                raise UserError(f"'{field}' is set by the grid itself", where, "use sizes, mixtures or seeds")
            if field in axes and name != "axes":
                raise UserError(f"'{field}' is an axis, and {name} sets it too", where, "remove one of them")
    for field, values in axes.items():
        if not isinstance(values, list) or not values:
            what = f"axes: '{field}' = {toml.quoted(values)} is not a list of values"
            raise UserError(what, where, f"write '{field}' = [...]")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise UserError(f"duplicate value in axes: '{field}' = {toml.quoted(values, limit=300)}", where)
    short = [field.rpartition(".")[2] for field in axes]
    labels = [name if short.count(name) == 1 else field for field, name in zip(axes, short, strict=True)]
    return [Axis(field, label, tuple(axes[field])) for field, label in zip(axes, labels, strict=True)]


def _check_points(grid: GridConfig, where: str) -> None:
    """UserError for unknown and repeated sizes, and for repeated seeds."""
    named = {name: tuple(getattr(grid, name)) for name in ("per_size", "resources")}
    named |= {f"mixtures.{name}.sizes": mixture.sizes for name, mixture in grid.mixtures.items()}
    for name, sizes in named.items():
        if stray := sorted(set(sizes) - set(grid.sizes)):
            raise UserError(
                f"{name} names '{stray[0]}', which is not in sizes", where, f"sizes: {' '.join(grid.sizes)}"
            )
    for name in ("seed", "size"):
        values = getattr(grid, f"{name}s")
        if len(set(values)) < len(values):
            raise UserError(f"duplicate {name} in {name}s = {toml.quoted(list(values), limit=300)}", where)
    for size in grid.sizes:
        presets.shape(size)


def _refuse_lengths(grid: GridConfig, overrides: Mapping[str, Overrides], where: str) -> None:
    """UserError if a sweep with `flops` sets the length of runs, too. overrides: by where they stand."""
    for name, fields in overrides.items() if grid.flops else ():
        if both := sorted(LENGTH & toml.flat(fields).keys()):
            raise UserError(f"flops decides the length of runs, and {name} sets '{both[0]}' too", where, "remove one")


def _in_name(value: Any, field: str) -> str:
    """A value as part of a run name: 0.0003, true, cosine, 4e15 FLOPs; characters unfit for a folder name become a
    dash."""
    if field == FLOPS:
        return f"{value:g}".replace("e+", "e")
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
