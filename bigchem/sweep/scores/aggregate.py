"""Scores grouped by task, metric, regime and size; each task's headline metric (PURE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from bigchem.base.errors import UserError
from bigchem.sweep.scores.estimate import Estimate, Floats, over_seeds
from bigchem.sweep.scores.records import LOSS, REGIMES, Regime, Scale, Score
from bigchem.sweep.scores.scales import SecondScale
from bigchem.tasks import Tasks

Key = tuple[str, str]
"""(task, metric)."""
Draws = Mapping[tuple[str, str, int], Floats]
"""(task, metric, id of the run) -> values over resamples of the test examples [B]."""


@dataclass(frozen=True)
class Cell:
    """One metric of one task at one size in one regime. estimate: None if n/a; note says why. n: examples that count,
    in the run with the fewest; None if no run states it. draws: of each seed, the values over resamples of the test
    examples [B], the same for every run of the task; only of runs whose predictions were resampled."""

    task: str
    metric: str
    regime: Regime
    parameters: int
    scale: Scale
    seeds: dict[int, Estimate]
    estimate: Estimate | None
    note: str = ""
    n: int | None = None
    draws: Mapping[int, Floats] = field(default_factory=dict, compare=False)

    def on(self, second: SecondScale) -> "Cell":
        """The cell on another scale; seeds that are not on it are left out."""
        moved = {seed: second.estimate(found, self.n) for seed, found in self.seeds.items()}
        seeds = {seed: found for seed, found in moved.items() if found is not None}
        draws = {seed: second.values(found, self.n) for seed, found in self.draws.items() if seed in seeds}
        mean = over_seeds(list(seeds.values())) if seeds else None
        return replace(self, seeds=seeds, estimate=mean, draws=draws)


def cells_of(scores: Sequence[Score], tasks: Tasks, draws: Draws | None = None) -> tuple[Cell, ...]:
    """Groups scores by task, metric, regime and size; tasks in the order of `tasks`, sizes ascending. draws: see
    ExampleDraws."""
    draws = draws or {}
    grouped: dict[tuple[str, str, Regime, int], list[Score]] = {}
    for score in scores:
        grouped.setdefault((score.task, score.metric, score.run.regime, score.run.parameters), []).append(score)
    keys = list(dict.fromkeys((score.task, score.metric) for score in scores))
    places = {name: place for place, name in enumerate(tasks)}
    order = sorted(grouped, key=lambda k: (places[k[0]], keys.index(k[:2]), REGIMES.index(k[2]), k[3]))
    cells = []
    for key in order:
        group = grouped[key]
        by_seed: dict[int, list[Score]] = {}
        for score in group:
            if score.estimate is not None:
                by_seed.setdefault(score.run.seed, []).append(score)
        # A seed has several scores only under --allow-mixed.
        seeds = {
            seed: over_seeds([score.estimate for score in found if score.estimate is not None])
            for seed, found in sorted(by_seed.items())
        }
        resampled = {seed: [draws.get((*key[:2], id(score.run))) for score in found] for seed, found in by_seed.items()}
        mean = over_seeds(list(seeds.values())) if seeds else None
        counts = [score.n for score in group if score.estimate is not None and score.n is not None]
        note = next((score.note for score in group if score.note), "")
        known = {
            seed: np.mean([d for d in found if d is not None], axis=0)
            for seed, found in resampled.items()
            if all(d is not None for d in found)
        }
        cells.append(Cell(*key, group[0].scale, seeds, mean, note, min(counts, default=None), known))
    return tuple(cells)


def headlines(cells: Sequence[Cell] | Sequence[Score], tasks: Tasks) -> dict[str, str]:
    """Each task's headline metric; if it is n/a, a variant of it (bleu4 -> bleu4_words), else any with a value: rather
    one of quality than the share of valid predictions or the loss."""
    found: dict[str, str] = {}
    for name, task in tasks.items():
        known = list(dict.fromkeys(c.metric for c in cells if c.task == name and c.estimate is not None))
        ranked = sorted(known, key=partial(_preference, task.headline))
        if ranked:
            found[name] = ranked[0]
    return found


def _preference(headline: str, metric: str) -> tuple[bool, ...]:
    return metric != headline, not metric.startswith(headline), metric == LOSS, metric.startswith("valid")


def chosen_metrics(metrics: Sequence[str], keys: Sequence[Key]) -> tuple[Key, ...]:
    """Parses TASK:METRIC; UserError for one that is not among the keys."""
    chosen = []
    for text in metrics:
        task, _, metric = text.partition(":")
        if (task, metric) not in keys:
            known = ", ".join(f"{t}:{m}" for t, m in keys)
            raise UserError(f"no results for '{text}'", "--metric", f"write TASK:METRIC, one of {known}")
        chosen.append((task, metric))
    return tuple(dict.fromkeys(chosen))


def size_name(parameters: float, digits: int = 2) -> str:
    """A rounded number of parameters, for reading: 0.2M, 1M, 5.2M, 248M, 1.2B. digits: at least so many count."""
    units = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
    unit, name = next(((u, n) for u, n in units if parameters >= (0.1 if n == "M" else 0.9995) * u), units[-1])
    scaled = parameters / unit
    return f"{scaled:.{max(digits, 3 if scaled >= 99.5 else 2)}g}{name}"
