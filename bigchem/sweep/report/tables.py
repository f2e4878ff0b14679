"""An analysis as rows of tables, for CSV files, the page and --json (PURE)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.axes import AxisScores
from bigchem.sweep.analysis.fits.shapes import SHAPES
from bigchem.sweep.analysis.gains import contrast, kind_of
from bigchem.sweep.analysis.isoflop import IsoFlop
from bigchem.sweep.analysis.transfer import Effect
from bigchem.sweep.scores.aggregate import Key
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import REGIMES

Row = dict[str, Any]


def metric_rows(analysis: Analysis) -> list[Row]:
    """One row per cell; value, low and high are None if unknown."""
    return [
        {
            "task": cell.task,
            "metric": cell.metric,
            "regime": cell.regime,
            "parameters": cell.parameters,
            **numbers(cell.estimate),
            "n": cell.n,
            "seeds": len(cell.seeds),
            "note": cell.note,
        }
        for cell in analysis.cells
    ]


def gain_rows(analysis: Analysis) -> list[Row]:
    """One row per size trained both ways, with its task and metric's slope per decade of parameters. paired: how many
    seeds compare predictions of the same examples."""
    rows = []
    for gain in analysis.gains:
        trend = analysis.trends.get((gain.task, gain.metric))
        rows.append(
            {
                "task": gain.task,
                "kind": kind_of(analysis.results.tasks[gain.task]),
                "metric": gain.metric,
                "parameters": gain.parameters,
                **numbers(gain.estimate, "gain"),
                "seeds": len(gain.points),
                "paired": gain.paired,
                **numbers(trend.per_decade if trend else None, "slope", "slope_low", "slope_high"),
                "sizes": trend.sizes if trend else None,
            }
        )
    return rows


def trend_rows(analysis: Analysis) -> list[Row]:
    """One row per metric with a gain at two or more sizes: its slope per decade of parameters, the tests, and what
    follows. detectable: the smallest slope that such a sweep finds with 80 % power. flops_slope: per decade of
    the shared models' training FLOPs."""
    rows, flops = [], analysis.results.shared_flops
    for (task, metric), trend in analysis.trends.items():
        tested = trend.p is not None
        second = trend.second.estimate if trend.second is not None and tested else None
        rows.append(
            {
                "task": task,
                "kind": kind_of(analysis.results.tasks[task]),
                "metric": metric,
                "sizes": trend.sizes,
                **numbers(trend.per_decade, "slope", "slope_low", "slope_high"),
                "p": trend.p,
                "p_holm": trend.corrected,
                "verdict": trend.verdict,
                "uncorrected": trend.uncorrected,
                "p_lack_of_fit": trend.lack_of_fit,
                "p_lack_of_fit_holm": trend.corrected_fit,
                **numbers(second, "second_slope", "second_low", "second_high"),
                "detectable": trend.slope.detectable() if tested else None,
                **numbers(trend.per_decade_of(flops), "flops_slope", "flops_low", "flops_high"),
            }
        )
    return rows


def pool_rows(analysis: Analysis) -> list[Row]:
    """One row per kind of task and size, with the kind's slope and the cross-domain minus the single-domain slope."""
    return [
        {
            "kind": pool.kind,
            "of": pool.of,
            "tasks": " ".join(pool.tasks),
            "parameters": size,
            **numbers(gain, "gain"),
            **numbers(pool.slope, "slope", "slope_low", "slope_high"),
            "sizes": len(pool.means.sizes) if pool.means else None,
            **numbers(contrast(analysis.pools, pool.of), "cross_minus_single", "contrast_low", "contrast_high"),
        }
        for pool in analysis.pools
        for size, gain in pool.gains.items()
    ]


def fit_rows(analysis: Analysis) -> list[Row]:
    """One row per fitted curve: its shape, formula, parameters with intervals, and each shape's error on left-out
    sizes, None if there were too few sizes to try it."""
    return [
        {
            "task": task,
            "metric": metric,
            "regime": regime,
            "shape": curve.shape,
            "formula": curve.formula,
            "parameters": "; ".join(f"{name} {_compact(found)}" for name, found in curve.parameters.items()),
            **{f"error_{shape}": curve.loo.get(shape) for shape in SHAPES},
            "sizes": curve.sizes,
        }
        for (task, metric, regime), curve in analysis.curves.items()
    ]


def beyond_rows(analysis: Analysis) -> list[Row]:
    """The drawn metrics' curves at the requested sizes. measured: within the curve's measured sizes."""
    rows = []
    for (task, metric, regime), curve in analysis.curves.items():
        sizes = [cell.parameters for cell in analysis.cells_of((task, metric), regime)]
        rows += [
            {
                "task": task,
                "metric": metric,
                "regime": regime,
                "parameters": parameters,
                "measured": sizes[0] <= parameters <= sizes[-1],
                "shape": curve.shape,
                **numbers(curve.at(parameters)),
            }
            for parameters in analysis.beyond
            if (task, metric) in analysis.shown
        ]
    return rows


def transfer_rows(effects: Sequence[Effect]) -> list[Row]:
    """One row per effect of an added task. examples: how many times as many of the task's examples the models with it
    had."""
    return [
        {
            "design": effect.design,
            "task": effect.gain.task,
            "metric": effect.gain.metric,
            "added": effect.added,
            "without": " ".join(effect.without),
            "parameters": effect.gain.parameters,
            **numbers(effect.gain.estimate, "effect"),
            "p": effect.p,
            "p_holm": effect.corrected,
            "verdict": ("undecided", "helps", "hurts")[effect.sign],
            "seeds": len(effect.gain.points),
            "paired": effect.gain.paired,
            "examples": effect.examples,
        }
        for effect in effects
    ]


def axis_rows(axes: Iterable[AxisScores]) -> list[Row]:
    """One row per value of an axis, task, metric, regime and size."""
    return [
        {
            "axis": scores.axis,
            "setting": setting,
            "task": cell.task,
            "metric": cell.metric,
            "regime": cell.regime,
            "parameters": cell.parameters,
            **numbers(cell.estimate),
            "seeds": len(cell.seeds),
        }
        for scores in axes
        for setting, cells in scores.cells.items()
        for cell in cells
    ]


def isoflop_rows(isoflops: Iterable[IsoFlop]) -> list[Row]:
    """One row per task, metric, regime and number of FLOPs: the best size, its verdict (see fits/parabola.py; None for
    two sizes), the metric there, and the exponent of the best sizes' growth."""
    return [
        {
            "task": one.task,
            "metric": one.metric,
            "regime": one.regime,
            "flops": profile.flops,
            "flops_lowest": profile.ends[0],
            "flops_highest": profile.ends[1],
            "sizes": len(profile.cells),
            "seeds": min(len(cell.seeds) for cell in profile.cells),
            "verdict": profile.fit.verdict if profile.fit else None,
            **numbers(profile.fit.size if profile.fit else None, "best"),
            "value": profile.fit.value if profile.fit else None,
            **numbers(one.exponent, "exponent", "exponent_low", "exponent_high"),
        }
        for one in isoflops
        for profile in one.profiles
    ]


AXES_COLUMNS = ("axis", "setting", "task", "metric", "regime", "parameters", "value", "low", "high", "seeds")
TABLES: Mapping[str, tuple[str, ...]] = {
    "metrics": ("task", "metric", "regime", "parameters", "value", "low", "high", "n", "seeds", "note"),
    "gain": (
        *("task", "kind", "metric", "parameters", "gain", "low", "high", "seeds", "paired"),
        *("slope", "slope_low", "slope_high", "sizes"),
    ),
    "trends": (
        *("task", "kind", "metric", "sizes", "slope", "slope_low", "slope_high", "p", "p_holm", "verdict"),
        *("uncorrected", "p_lack_of_fit", "p_lack_of_fit_holm", "second_slope", "second_low", "second_high"),
        *("detectable", "flops_slope", "flops_low", "flops_high"),
    ),
    "kinds": (
        *("kind", "of", "tasks", "parameters", "gain", "low", "high", "slope", "slope_low", "slope_high", "sizes"),
        *("cross_minus_single", "contrast_low", "contrast_high"),
    ),
    "fits": (
        *("task", "metric", "regime", "shape", "formula", "parameters"),
        *(f"error_{shape}" for shape in SHAPES),
        "sizes",
    ),
    "beyond": ("task", "metric", "regime", "parameters", "measured", "shape", "value", "low", "high"),
    "transfer": (
        *("design", "task", "metric", "added", "without", "parameters", "effect", "low", "high", "p", "p_holm"),
        *("verdict", "seeds", "paired", "examples"),
    ),
    "axes": AXES_COLUMNS,
    "isoflop": (
        *("task", "metric", "regime", "flops", "flops_lowest", "flops_highest", "sizes", "seeds", "verdict"),
        *("best", "low", "high", "value", "exponent", "exponent_low", "exponent_high"),
    ),
}
"""The CSV files and their columns."""


def tables(analysis: Analysis) -> dict[str, list[Row]]:
    """The rows of each of TABLES."""
    return {
        "metrics": metric_rows(analysis),
        "gain": gain_rows(analysis),
        "trends": trend_rows(analysis),
        "kinds": pool_rows(analysis),
        "fits": fit_rows(analysis),
        "beyond": beyond_rows(analysis),
        "transfer": transfer_rows(analysis.transfer),
        "axes": axis_rows(analysis.axes),
        "isoflop": isoflop_rows(analysis.isoflops),
    }


def numbers(estimate: Estimate | None, value: str = "value", low: str = "low", high: str = "high") -> Row:
    """An estimate as three fields, None if unknown."""
    if estimate is None:
        return {value: None, low: None, high: None}
    return {value: estimate.value, low: estimate.low, high: estimate.high}


def _compact(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def paired_rows(analysis: Analysis, keys: Iterable[Key]) -> list[Row]:
    """Both regimes and the gain side by side: one row per task, metric and size. n: of the regime with fewer."""
    gains = {(g.task, g.metric, g.parameters): g.estimate for g in analysis.gains}
    cells = {(c.task, c.metric, c.parameters, c.regime): c for c in analysis.cells}
    rows = []
    for task, metric in keys:
        for size in sorted({c.parameters for c in analysis.cells if (c.task, c.metric) == (task, metric)}):
            together, alone = (cells.get((task, metric, size, regime)) for regime in REGIMES)
            found = [cell for cell in (together, alone) if cell]
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "parameters": size,
                    "together": together.estimate if together else None,
                    "alone": alone.estimate if alone else None,
                    "gain": gains.get((task, metric, size)),
                    "n": min((cell.n for cell in found if cell.n is not None), default=None),
                    "seeds": max(len(cell.seeds) for cell in found),
                    "note": next((cell.note for cell in found if cell.note), ""),
                }
            )
    return rows


def estimate_text(estimate: Estimate | None, signed: bool = False) -> str:
    """0.412 [0.380, 0.440], with a true minus sign."""
    if estimate is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{estimate.value:{sign}z.3f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low:{sign}z.3f}, {estimate.high:{sign}z.3f}]"
    return text.replace("-", "−")
