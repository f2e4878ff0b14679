"""Tables for a paper in LaTeX, with booktabs: scores with intervals, the better regime in bold, and trends (PURE)."""

from collections.abc import Iterable, Sequence

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.gains import kind_of
from bigchem.sweep.report.tables import paired_rows
from bigchem.sweep.scores.aggregate import Key, size_name
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import REGIMES

SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "²": r"\textsuperscript{2}",
    "ρ": r"$\rho$",
    "−": "$-$",
}


def latex_tables(analysis: Analysis) -> dict[str, str]:
    """File name -> a tabular environment, for \\input."""
    keys: list[Key] = list(dict.fromkeys((c.task, c.metric) for c in analysis.cells))
    found = {
        "headline": scores(analysis, list(analysis.headline.items())),
        "all-metrics": scores(analysis, keys),
    }
    if analysis.trends:
        found["trends"] = trends(analysis)
    if analysis.isoflops:
        found["isoflop"] = isoflops(analysis)
    return found


def scores(analysis: Analysis, keys: Sequence[Key]) -> str:
    """Together, alone and the gain, one row per task, metric and size. Bold: the better mean, where the gain's interval
    excludes zero."""
    rows = []
    for row in paired_rows(analysis, keys):
        gain, sides = row["gain"], [row[regime] for regime in REGIMES]
        better = None if gain is None or not gain.sign else int(gain.sign < 0)
        cells = [_bold(number(side), index == better) for index, side in enumerate(sides)]
        name = f"{escaped(with_unit(row['metric']))}"
        rows.append([escaped(row["task"]), name, size_name(row["parameters"]), *cells, number(gain, signed=True)])
    return tabular("llrrrr", ("task", "metric", "size", *REGIMES, "gain"), rows)


def trends(analysis: Analysis) -> str:
    """The slope of every metric's gain, with p values alone and by Holm's correction."""
    rows = []
    for (task, metric), trend in analysis.trends.items():
        kind = kind_of(analysis.results.tasks[task])
        p = ["--" if value is None else f"{value:.2g}" for value in (trend.p, trend.corrected)]
        slope = number(trend.per_decade, signed=True)
        rows.append([kind, escaped(task), escaped(written(metric)), slope, *p, escaped(trend.verdict)])
    return tabular("lllrrrl", ("kind", "task", "metric", "slope per decade", "$p$", "$p$ (Holm)", "verdict"), rows)


def isoflops(analysis: Analysis) -> str:
    """The best size of every drawn metric at each number of FLOPs, and the exponent of its growth."""
    rows = []
    for one in (one for one in analysis.isoflops if one.key in analysis.shown):
        grows = "--" if one.exponent is None else escaped(captions.exponent(one.exponent))
        for profile in one.profiles:
            best = "two sizes" if profile.fit is None else captions.best_size(profile.fit).removeprefix("best size ")
            flops = captions.flops_name(profile.flops)
            cells = [one.task, written(one.metric), one.regime, flops, str(len(profile.cells)), best]
            rows.append([*map(escaped, cells), grows])
    return tabular("lllrrrr", ("task", "metric", "regime", "FLOPs", "sizes", "best size", "exponent"), rows)


def tabular(columns: str, head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A tabular environment with booktabs' rules. The cells are LaTeX already."""
    body = "".join(f"{' & '.join(row)} \\\\\n" for row in rows)
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(head)} \\\\\n"
        f"\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def number(estimate: Estimate | None, *, signed: bool = False) -> str:
    """0.412 [0.380, 0.440]; signed: with its sign."""
    if estimate is None:
        return "--"
    ends = (
        [estimate.value]
        if estimate.low is None or estimate.high is None
        else [estimate.value, estimate.low, estimate.high]
    )
    value, *interval = (f"${found:{'+' if signed else ''}z.3f}$" for found in ends)
    return f"{value} [{', '.join(interval)}]" if interval else value


def _bold(text: str, really: bool) -> str:
    return rf"\textbf{{\boldmath {text}}}" if really else text


def escaped(text: str) -> str:
    """Text whose characters LaTeX prints as they are."""
    return "".join(SPECIAL.get(character, character) for character in text)
