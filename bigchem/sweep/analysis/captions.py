"""What a figure shows, in words that its intervals carry (PURE).

A caption says that a value rises, or that sharing is ahead, only where the 95 % interval of that difference excludes
zero. Each is a single test, without a correction for the others: the report's first sentences have that.
"""

from collections.abc import Mapping, Sequence

from bigchem.sweep.analysis.claim import joined, name_of
from bigchem.sweep.analysis.conclusions import GROWTH
from bigchem.sweep.analysis.fits.parabola import Parabola
from bigchem.sweep.analysis.gains import Gain, Pool
from bigchem.sweep.analysis.isoflop import IsoFlop
from bigchem.sweep.analysis.transfer import Effect
from bigchem.sweep.analysis.trends import LEVEL, Trend
from bigchem.sweep.scores.aggregate import Cell, size_name
from bigchem.sweep.scores.estimate import Estimate, difference
from bigchem.sweep.scores.records import Regime

Place = tuple[str, Cell]
"""Where on an axis, as text, and the scores there."""
NAMED = 6
"""At most this many effects are named one by one."""


def of_metric(name: str, cells: Mapping[Regime, Sequence[Cell]], gains: Sequence[Gain]) -> str:
    """captioning BLEU-4 rises from 1M to 16M in both regimes; sharing is ahead at 16M.

    cells, gains: of one metric, with values, by size.
    """
    places = {regime: [(size_name(cell.parameters), cell) for cell in found] for regime, found in cells.items()}
    return "; ".join(filter(None, (f"{name} {_moves(places)}", _lead(gains))))


def of_measure(name: str, measure: str, places: Mapping[Regime, Sequence[Place]]) -> str:
    """captioning BLEU-4 against training FLOPs rises from 1e12 to 1.6e13 in both regimes."""
    return f"{name} against {measure} {_moves(places)}"


def of_axis(name: str, axis: str, lines: Mapping[str, Sequence[Place]]) -> str:
    """captioning loss against optimizer.lr: best at 0.0006 for 1M together and 1M alone; best at 0.0003, though not
    certainly, for 4M together.

    lines: by size and regime.
    """
    found: dict[str, list[str]] = {}
    for line, places in lines.items():
        found.setdefault(_best_place(places), []).append(line)
    return f"{name} against {axis}: {'; '.join(f'{best} for {joined(names)}' for best, names in found.items())}"


def of_transfer(effects: Sequence[Effect]) -> str:
    """forward helps captioning, captioning hurts forward, 4 of 6 are undecided.

    effects: of one matrix.
    """
    if all(effect.p is None for effect in effects):
        return "one seed decides nothing"
    found = [f"{e.added} {'helps' if e.sign > 0 else 'hurts'} {e.gain.task}" for e in effects if e.sign]
    more = [f"{len(found) - NAMED} more are decided"] if len(found) > NAMED else []
    undecided = sum(not effect.sign for effect in effects)
    return ", ".join([*found[:NAMED], *more, *([f"{undecided} of {len(effects)} are undecided"] if undecided else [])])


def of_gain(name: str, gains: Sequence[Gain], trend: Trend | None) -> str:
    """gain of sharing in captioning BLEU-4: the gain grows with size; sharing is ahead at 16M."""
    if trend is None:
        growth = "too few sizes for a slope"
    elif trend.p is None:
        growth = "too few sizes or seeds to tell whether it grows with size"
    else:
        growth = GROWTH[trend.uncorrected]
    return f"gain of sharing in {name}: {growth}; {_lead(gains)}"


def of_pool(pool: Pool) -> str:
    """the mean gain rises with size and is above zero at 16M."""
    if not pool.gains:
        return "its tasks have no size in common"
    size = max(pool.gains)
    level = ("is not certain", "is above zero", "is below zero")[pool.gains[size].sign]
    if pool.gains[size].margins is None:
        level = "has no interval"
    return f"the mean gain {_slope(pool)} and {level} at {size_name(size)}"


def of_all(gains: Sequence[Estimate], place: str) -> str:
    """at 16M sharing is ahead in 5 of 14 metrics, behind in 2 and undecided in 7."""
    counts = {word: sum(gain.sign == sign for gain in gains) for word, sign in SIDES.items()}
    first, *others = [f"{word} in {count}" for word, count in counts.items() if count]
    return f"{place} sharing is {joined([f'{first} of {len(gains)} metrics', *others])}"


def of_isoflops(found: Sequence[IsoFlop]) -> str:
    """captioning loss against parameters at equal training FLOPs; together: best size 1.2M [1M, 1.4M] at 1e13 FLOPs,
    at the edge at 4e13; it grows as FLOPs^0.48 [0.41, 0.55]."""
    parts = [f"{name_of(found[0].key)} against parameters at equal training FLOPs"]
    for one in found:
        fits = [f"{best_size(p.fit)} at {flops_name(p.flops)} FLOPs" for p in one.profiles if p.fit is not None]
        growth = "" if one.exponent is None else f", growing as FLOPs^{exponent(one.exponent)}"
        parts.append(f"{one.regime}: {', '.join(fits)}{growth}")
    return "; ".join(parts)


def best_size(fit: Parabola) -> str:
    """best size 1.2M [1M, 1.4M]."""
    if fit.size is None:
        return "best size at the edge: not determined"
    value, low, high = (
        None if end is None else size_name(end, 3) for end in (fit.size.value, fit.size.low, fit.size.high)
    )
    if fit.verdict == "open":
        return f"best size {value} (its interval reaches beyond the sizes)"
    return f"best size {value} {'(no interval)' if low is None else f'[{low}, {high}]'}"


def exponent(estimate: Estimate) -> str:
    """0.48 [0.41, 0.55]."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f} (no interval)".replace("-", "−")
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]".replace("-", "−")


def flops_name(flops: float) -> str:
    """1e13, 4.2e13."""
    return f"{flops:.2g}".replace("e+", "e")


SIDES = {"ahead": 1, "behind": -1, "undecided": 0}


def _moves(places: Mapping[Regime, Sequence[Place]]) -> str:
    """rises from 1M to 16M in both regimes."""
    moves = {regime: _move(found) for regime, found in places.items() if found}
    if len(set(moves.values())) == 1 and len(moves) > 1:
        return f"{next(iter(moves.values()))} in both regimes"
    return joined([f"{move} {regime}" for regime, move in moves.items()])


def _move(places: Sequence[Place]) -> str:
    """From the first place to the last."""
    (start, first), (end, last) = places[0], places[-1]
    if first is last or first.estimate is None or last.estimate is None:
        return f"is known at {start}"
    span = f"from {start} to {end}"
    change = difference(last.estimate, first.estimate)
    if change.margins is None:
        return f"changes by {change.value:+.3g} (no interval) {span}".replace("-", "−")
    return f"{('does not certainly change', 'rises', 'falls')[change.sign]} {span}"


def _best_place(places: Sequence[Place]) -> str:
    """Certain if the best value's difference from the second best excludes zero, both taken as independent."""
    sign = 1 if places[0][1].scale.higher_is_better else -1
    known = [(place, cell.estimate) for place, cell in places if cell.estimate is not None]
    (place, first), *others = sorted(known, key=lambda one: -sign * one[1].value)
    if not others:
        return f"known at {place} only"
    lead = difference(first, others[0][1])
    if lead.margins is None:
        return f"best at {place} (no interval)"
    return f"best at {place}" if lead.sign else f"best at {place}, though not certainly,"


def _lead(gains: Sequence[Gain]) -> str:
    """At the largest size that was trained both ways; empty without one."""
    if not gains:
        return ""
    estimate, size = gains[-1].estimate, size_name(gains[-1].parameters)
    if estimate.margins is None:
        return f"the gain at {size} has no interval"
    return (f"whether sharing helps at {size} is open", f"sharing is ahead at {size}", f"sharing is behind at {size}")[
        estimate.sign
    ]


def _slope(pool: Pool) -> str:
    if pool.means is None or pool.slope is None:
        return "has too few sizes or seeds for a slope"
    misfit = pool.means.lack_of_fit()
    if misfit is not None and misfit < LEVEL:
        return "does not follow a line"
    return ("does not certainly change with size", "rises with size", "falls with size")[pool.slope.sign]
