"""A sweep's TOML -> run configurations: sizes x mixtures x seeds over one base."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

from pydantic import Field

from bigchem import shipped, strict
from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.model import presets
from bigchem.strict import Section

OWNED = ("name", "seed", "model.preset")

Overrides = dict[str, Any]
"""Dotted field of the run configuration -> value: {"train.steps" = 300}."""


class Mixture(Section):
    """One column of the grid."""

    weights: dict[str, float]
    """Weight of each task."""
    set: Overrides = Field(default_factory=dict)
    """Fields of the runs with this mixture."""


class GridConfig(Section):
    """A sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the sweep and of its folder of runs."""
    base: str
    """Run configuration: a shipped name or a path."""
    base_set: Overrides = Field(default_factory=dict)
    """Fields of every run."""
    sizes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Presets."""
    mixtures: Annotated[dict[str, Mixture], Field(min_length=1)]
    """Mixtures by name."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Seeds."""
    per_size: dict[str, Overrides] = Field(default_factory=dict)
    """Fields of the runs of one size, by preset."""


def load_runs(name: str, overrides: tuple[str, ...] = ()) -> list[RunConfig]:
    """The runs of a sweep, by its shipped name or path."""
    return expand(strict.load(GridConfig, shipped.find("recipes", name, ".toml"), overrides))


def expand(grid: GridConfig) -> list[RunConfig]:
    """Every run of a sweep, small sizes first. Later overrides win: base_set, mixture, size."""
    stray = sorted(set(grid.per_size) - set(grid.sizes))
    if stray:
        raise UserError(
            f"per_size names '{stray[0]}', which is not in sizes", grid.name, f"sizes: {' '.join(grid.sizes)}"
        )
    if len(set(grid.seeds)) < len(grid.seeds):
        raise UserError(f"a seed stands twice in seeds = {list(grid.seeds)}", grid.name)
    if len(set(grid.sizes)) < len(grid.sizes):
        raise UserError(f"a size stands twice in sizes = {list(grid.sizes)}", grid.name)
    for size in grid.sizes:
        presets.shape(size)
    base = strict.load(RunConfig, shipped.find("recipes", grid.base, ".toml")).model_dump()
    runs = []
    for size, (mixture_name, mixture), seed in product(grid.sizes, grid.mixtures.items(), grid.seeds):
        table = _copied(base)
        for overrides in (grid.base_set, mixture.set, grid.per_size.get(size, {})):
            for field, value in strict.flat(overrides).items():
                if field in OWNED or field.startswith("data.mixture"):
                    raise UserError(f"'{field}' is set by the grid itself", grid.name, "use sizes, mixtures or seeds")
                strict.put(table, field, value, f"sweep {grid.name}")
        table["runs"] = f"{table['runs']}/{grid.name}"
        table["name"] = f"{size.removeprefix('sweep-')}-{mixture_name}-s{seed}"
        table["seed"] = seed
        table["model"]["preset"] = size
        table["data"]["mixture"] = mixture.weights
        runs.append(strict.validate(RunConfig, table, f"sweep {grid.name}: {table['name']}"))
    return runs


def _copied(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in table.items()}
