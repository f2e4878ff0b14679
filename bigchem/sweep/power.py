"""`bigchem sweep power`: the slopes of the gain that a sweep can find, from the noise of a pilot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.power import MOST_SEEDS, detectable_slope, seeds_to_find
from bigchem.sweep.analysis.size_means import SizeMeans
from bigchem.sweep.scores.records import LOSS


@dataclass(frozen=True)
class Power:
    """Of one gain. detectable: by number of seeds, the smallest slope per decade that is found with 80 % power.
    slope: the pilot's. sought: the slope of interest. seeds: the fewest that find it; None if MOST_SEEDS do not."""

    gain: str
    detectable: dict[int, float]
    slope: float
    sought: float
    seeds: int | None


def power(
    analysis: Analysis, seeds: Sequence[int], sizes: Sequence[float] = (), sought: float | None = None
) -> list[Power]:
    """Of the pooled gains, and of each task's headline metric and loss. sizes: of the planned sweep; none: the pilot's.
    sought: the slope of interest; None: the pilot's. UserError if the pilot does not say how much seeds differ."""
    if sizes and (
        len(set(sizes)) < 2 or len(set(sizes)) < len(sizes) or not all(0 < size < math.inf for size in sizes)
    ):
        raise UserError("a slope needs two different sizes above zero", "--size", "repeat it: --size 2e5 --size 6e7")
    gains: list[tuple[str, SizeMeans]] = [
        (f"{pool.kind} {pool.of}", pool.means) for pool in analysis.pools if pool.means is not None
    ]
    for task, metric in analysis.headline.items():
        for key in dict.fromkeys([(task, metric), (task, LOSS)]):
            if key in analysis.trends:
                gains.append((" ".join(key), analysis.trends[key].means))
    found = [one for name, means in gains if (one := _power(name, means, seeds, sizes, sought)) is not None]
    if not found:
        raise UserError(
            "the pilot does not say how much seeds differ",
            hint="train two sizes both together and alone, one of them with at least two seeds",
        )
    return found


def _power(
    name: str, means: SizeMeans, seeds: Sequence[int], sizes: Sequence[float], sought: float | None
) -> Power | None:
    slope, found = means.slope(), {n: detectable_slope(means, n, sizes) for n in seeds}
    if slope is None or any(value is None for value in found.values()):
        return None
    known = {n: value for n, value in found.items() if value is not None}
    sought = slope.value if sought is None else sought
    return Power(name, known, slope.value, sought, seeds_to_find(means, sought, sizes))


def table(rows: Sequence[Power]) -> Table:
    """One row per gain."""
    out = Table("gain of sharing", box=None)
    for seeds in rows[0].detectable:
        out.add_column(f"{seeds} seeds find", justify="right", no_wrap=True)
    out.add_column("pilot's slope", justify="right")
    own = all(row.sought == row.slope for row in rows)
    out.add_column("seeds to find it" if own else f"seeds to find {rows[0].sought:g}", justify="right")
    for row in rows:
        needed = f"over {MOST_SEEDS}" if row.seeds is None else str(row.seeds)
        out.add_row(markup(row.gain), *(f"{v:.3g}" for v in row.detectable.values()), f"{row.slope:+.3g}", needed)
    return out


def to_json(rows: Sequence[Power]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    return [
        {
            "gain": row.gain,
            "detectable": {str(n): v for n, v in row.detectable.items()},
            "slope": row.slope,
            "sought": row.sought,
            "seeds": row.seeds,
        }
        for row in rows
    ]
