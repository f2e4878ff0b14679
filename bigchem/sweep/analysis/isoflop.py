"""Scores against model size at equal training FLOPs, and the best size at each (PURE).

Runs are compared within a regime: all shared models, or one task alone. Their FLOPs are those that their training
records count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from bigchem.sweep.analysis.claim import joined
from bigchem.sweep.analysis.diverged import diverged
from bigchem.sweep.analysis.fits.parabola import MIN_SIZES, Parabola, growth, parabola
from bigchem.sweep.scores import budgets
from bigchem.sweep.scores.aggregate import Cell, Draws, Key, cells_of
from bigchem.sweep.scores.axes import FLOPS
from bigchem.sweep.scores.estimate import Z95, Estimate, Floats
from bigchem.sweep.scores.records import Regime, Results, Run, Score, tasks_of

TOLERANCE = 1.1
"""Highest over lowest FLOPs of a group. FLOPs that rise by as much from a quarter to four times the best size move a
parabola's minimum by 8 % (planted losses, constants of Hoffmann et al. 2022)."""
BUDGET_AXES = (FLOPS, "train.tokens", "train.steps")
"""Axes of a sweep along which runs get longer."""
DRAWS = 1000
NAMED = 6
"""Runs that a note names one by one."""


@dataclass(frozen=True)
class Profile:
    """One metric at equal FLOPs. flops: their mean over the runs. ends: their lowest and highest. cells: by size, two
    or more. fit: for three sizes or more."""

    flops: float
    ends: tuple[float, float]
    cells: tuple[Cell, ...]
    fit: Parabola | None


@dataclass(frozen=True)
class IsoFlop:
    """One metric of one regime. profiles: by FLOPs. exponent: the best size grows as FLOPs to it; None for fewer than
    two best sizes."""

    task: str
    metric: str
    regime: Regime
    profiles: tuple[Profile, ...]
    exponent: Estimate | None

    @property
    def key(self) -> Key:
        """(task, metric)."""
        return self.task, self.metric


def isoflops_of(
    results: Results, draws: Draws | None = None, *, keep_diverged: bool = False
) -> tuple[tuple[IsoFlop, ...], tuple[str, ...]]:
    """Every metric of every task and regime that has three sizes at equal FLOPs; notes name the runs that are left out,
    and why. Without such a metric, nothing; and no notes, unless the runs have one of BUDGET_AXES."""
    axes = [axis for axis in BUDGET_AXES if axis in results.by_axis]
    scores = list({id(s): s for s in (*results.scores, *(s for a in axes for s in results.by_axis[a]))}.values())
    left_out: dict[str, list[Run]] = {}
    groups = _groups(scores, left_out, keep_diverged)
    tasks, by_key = tasks_of(scores), dict[tuple[Key, Regime], list[tuple[list[Run], list[Cell]]]]()
    for runs in groups:
        inside = {id(run) for run in runs}
        own: dict[Key, list[Cell]] = {}
        for cell in cells_of([s for s in scores if id(s.run) in inside], tasks, draws):
            if cell.estimate is not None:
                own.setdefault((cell.task, cell.metric), []).append(cell)
        for key, cells in own.items():
            if len(cells) > 1:
                by_key.setdefault((key, cells[0].regime), []).append((runs, cells))
    found = [
        _isoflop(key, regime, profiles)
        for (key, regime), profiles in by_key.items()
        if max(len(cells) for _, cells in profiles) >= MIN_SIZES
    ]
    if not found and not axes:
        return (), ()
    lacking = () if found else ("No IsoFLOP view: no three sizes have equal training FLOPs.",)
    return tuple(found), (*lacking, *_notes(left_out))


def _groups(scores: Sequence[Score], left_out: dict[str, list[Run]], keep_diverged: bool) -> list[list[Run]]:
    """Runs of two or more sizes with equal FLOPs, of one regime and comparable, ascending by FLOPs."""
    by_regime: dict[tuple[str, ...], list[Run]] = {}
    for run in {id(s.run): s.run for s in scores}.values():
        if not _flops(run):
            left_out.setdefault("training FLOPs unknown", []).append(run)
        elif budgets.unfinished(run):
            left_out.setdefault("unfinished", []).append(run)
        else:
            tasks = run.mixture if run.regime == "alone" else ()
            by_regime.setdefault((run.regime, *tasks), []).append(run)
    found = []
    for runs in by_regime.values():
        for group in _equal(runs, left_out):
            kept = _comparable(group, scores, left_out, keep_diverged)
            if len({run.parameters for run in kept}) > 1:
                found.append(kept)
            elif kept:
                left_out.setdefault("no other size has as many FLOPs", []).extend(kept)
    return found


def _equal(runs: Iterable[Run], left_out: dict[str, list[Run]]) -> list[list[Run]]:
    """Groups of runs whose FLOPs are equal within TOLERANCE, and further than that from the next group's."""
    ordered = sorted(runs, key=_flops)
    cuts = [i for i, (a, b) in enumerate(pairwise(ordered), 1) if _flops(b) > TOLERANCE * _flops(a)]
    groups = [ordered[start:stop] for start, stop in pairwise([0, *cuts, len(ordered)])]
    for group in groups:
        if _flops(group[-1]) > TOLERANCE * _flops(group[0]):
            left_out.setdefault("FLOPs that run into those of other groups", []).extend(group)
    return [group for group in groups if _flops(group[-1]) <= TOLERANCE * _flops(group[0])]


def _comparable(
    group: list[Run], scores: Sequence[Score], left_out: dict[str, list[Run]], keep_diverged: bool
) -> list[Run]:
    """The runs of a group without those that diverged, and without sizes whose seeds have different lengths; none if
    they differ in more than their lengths."""
    inside = {id(run) for run in group}
    odd = {id(one.run) for one in diverged([s for s in scores if id(s.run) in inside])}
    if odd and not keep_diverged:
        left_out.setdefault("diverged", []).extend(run for run in group if id(run) in odd)
        group = [run for run in group if id(run) not in odd]
    lengths: dict[int, set[tuple[int, int]]] = {}
    for run in group:
        if run.training is not None:
            lengths.setdefault(run.parameters, set()).add((run.training.steps, run.training.global_tokens))
    mixed = [run for run in group if len(lengths[run.parameters]) > 1]
    if mixed:
        left_out.setdefault("seeds of one size with other steps or tokens of a step", []).extend(mixed)
        group = [run for run in group if len(lengths[run.parameters]) == 1]
    if difference := budgets.besides_length(group):
        left_out.setdefault(difference, []).extend(group)
        return []
    return group


def _flops(run: Run) -> float:
    return 0.0 if run.training is None else run.training.flops or 0.0


def _isoflop(key: Key, regime: Regime, groups: Sequence[tuple[list[Run], list[Cell]]]) -> IsoFlop:
    cells = [found for _, found in groups]
    draws, start, profiles = _redrawn(cells), 0, []
    for runs, found in groups:
        own = None if draws is None else draws[:, start : start + len(found)]
        start += len(found)
        flops = [_flops(run) for run in runs]
        profiles.append(Profile(fmean(flops), (min(flops), max(flops)), tuple(found), _fit(found, own)))
    fitted = [(profile.flops, profile.fit) for profile in profiles if profile.fit is not None]
    exponent = growth([flops for flops, _ in fitted], [fit for _, fit in fitted])
    return IsoFlop(*key, regime, tuple(profiles), exponent)


def _fit(cells: Sequence[Cell], draws: Floats | None) -> Parabola | None:
    if len(cells) < MIN_SIZES:
        return None
    better = cells[0].scale.higher_is_better
    return parabola([cell.parameters for cell in cells], _means(cells), draws, higher_is_better=better)


def _means(cells: Sequence[Cell]) -> Floats:
    return np.array([np.mean([seed.value for seed in cell.seeds.values()]) for cell in cells])


def _redrawn(groups: Sequence[Sequence[Cell]]) -> Floats | None:
    """The means of all cells with their noise redrawn [draws, cells]; None if nothing is known of it.

    The test examples' noise is that of the common resamples, or independent where there are none. That of training is
    the scatter of the seeds, pooled over all cells, by Student's t. With one seed everywhere, the scatter about the
    parabolas stands for both.
    """
    cells, random = [cell for group in groups for cell in group], np.random.default_rng(0)
    means, counts = _means(cells), np.array([len(cell.seeds) for cell in cells])
    examples = _examples(cells, random)
    squares = float(sum(np.var([s.value for s in c.seeds.values()]) * len(c.seeds) for c in cells))
    dof = int((counts - 1).sum())
    if not dof:
        fits = [(group, fit) for group in groups if (fit := _fit(group, None)) is not None]
        squares = float(sum(((_means(g) - fit(np.array([c.parameters for c in g]))) ** 2).sum() for g, fit in fits))
        dof = sum(len(group) - MIN_SIZES for group, _ in fits)
        if not dof:
            return None if examples is None else means + examples
        examples = None
    size = (DRAWS if examples is None else len(examples), len(cells))
    student = random.normal(size=size) * np.sqrt(dof / random.chisquare(dof, size=(size[0], 1)))
    noise = np.sqrt(squares / dof / counts) * student
    return means + noise + (0.0 if examples is None else examples)


def _examples(cells: Sequence[Cell], random: np.random.Generator) -> Floats | None:
    """The part of the cells' noise that is the test examples' [draws, cells]; None if it is unknown."""
    if all(cell.draws and cell.draws.keys() == cell.seeds.keys() for cell in cells):
        drawn = np.stack([np.mean(list(cell.draws.values()), axis=0) for cell in cells], axis=1)
        if not np.isnan(drawn).any():
            centred: Floats = drawn - drawn.mean(axis=0)
            return centred
    margins = [[seed.margins for seed in cell.seeds.values()] for cell in cells]
    if any(one is None for each in margins for one in each):
        return None
    deviations = np.array([fmean(max(one) for one in each if one is not None) / Z95 for each in margins])
    independent: Floats = random.normal(size=(DRAWS, len(cells))) * deviations
    return independent


def _notes(left_out: Mapping[str, Sequence[Run]]) -> list[str]:
    notes = []
    for why, runs in left_out.items():
        names = [run.name for run in runs]
        more = [f"{len(names) - NAMED} more"] if len(names) > NAMED + 1 else []
        shown = joined([*names[:NAMED], *more]) if more else joined(names)
        notes.append(f"Not in the IsoFLOP view: {shown} ({why}).")
    return notes
