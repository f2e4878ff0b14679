"""A report's conclusions and main numbers in Markdown, for a README or a page of a project (PURE)."""

from collections.abc import Iterable

from bigchem.base.printable import markdown_table
from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.report.tables import estimate_text, paired_rows
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.records import LOSS, REGIMES


def markdown(analysis: Analysis) -> str:
    """The claim and its sentences, the drawn metrics in both regimes with their gains, the slopes, and the notes."""
    parts = [
        f"**{analysis.claim}**",
        _list(analysis.sentences),
        "Scores, and the gain of sharing (positive: sharing helps), with 95 % intervals:",
        _scores(analysis),
    ]
    if analysis.trends:
        parts += ["The slope of the gain per tenfold increase in parameters:", _slopes(analysis)]
    if analysis.transfer:
        parts += ["Transfer between tasks (positive: what is added helps):", _transfer(analysis)]
    if analysis.notes:
        parts += ["Notes:", _list(analysis.notes)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _scores(analysis: Analysis) -> str:
    rows = []
    for row in paired_rows(analysis, sorted(analysis.shown, key=lambda key: [*analysis.results.tasks].index(key[0]))):
        values = (estimate_text(row[regime]) for regime in REGIMES)
        name = f"{row['task']}, {with_unit(row['metric'])}"
        rows.append([name, size_name(row["parameters"]), *values, estimate_text(row["gain"], signed=True)])
    return markdown_table(("metric", "parameters", *REGIMES, "gain"), rows)


def _slopes(analysis: Analysis) -> str:
    """Of the drawn metrics, and of the pools."""
    rows = []
    for key in analysis.shown:
        if (trend := analysis.trends.get(key)) is not None:
            found = "–" if trend.p is None else f"{trend.slope.detectable():.2g}"
            p = "–" if trend.corrected is None else f"{trend.corrected:.2g}"
            name = f"{key[0]}, {written(key[1])}"
            rows.append([name, estimate_text(trend.per_decade, signed=True), p, trend.verdict, found])
    for pool in analysis.pools:
        slope = None if pool.means is None else pool.means.slope()
        if slope is not None and slope.p is not None:
            name = f"{pool.kind} tasks, {'loss' if pool.of == LOSS else 'headline metrics'}"
            rows.append([name, estimate_text(slope.estimate, signed=True), "–", "–", f"{slope.detectable():.2g}"])
    return markdown_table(("gain of", "slope", "p (Holm)", "verdict", "detectable (80 % power)"), rows)


def _transfer(analysis: Analysis) -> str:
    rows = []
    for effect in analysis.transfer:
        gain, p = effect.gain, "–" if effect.corrected is None else f"{effect.corrected:.2g}"
        name, size = f"{gain.task}, {written(gain.metric)}", size_name(gain.parameters)
        rows.append([effect.added, effect.design, size, name, estimate_text(gain.estimate, signed=True), p])
    return markdown_table(("added", "design", "parameters", "effect on", "effect", "p (Holm)"), rows)


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
