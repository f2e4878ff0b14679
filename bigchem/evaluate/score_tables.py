"""Scores as terminal tables, Markdown and JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from bigchem.base.printable import markdown_table, markup
from bigchem.evaluate.protocol.score_task import Score

HEADER = ("task", "metric", "value", "95 % interval", "n", "definition", "note")


def table(scores: Sequence[Score]) -> Table:
    """The scores over all examples as a terminal table, a section per task; the column of notes only if needed."""
    rows = rows_of(scores)
    columns = len(HEADER) if any(row[-1] for row in rows) else len(HEADER) - 1
    out = Table()
    for name in HEADER[:columns]:
        out.add_column(name, justify="right" if name in ("value", "95 % interval", "n") else "left")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is None or following[0] != row[0]
        out.add_row(*map(markup, row[:columns]), end_section=last)
    return out


def class_table(scores: Sequence[Score]) -> Table | None:
    """A row per class of examples, a column per metric; None without classes."""
    groups = list(dict.fromkeys(score.group for score in scores if score.group))
    if not groups:
        return None
    metrics = list(dict.fromkeys(score.metric for score in scores if score.group and score.value is not None))
    found = {(score.group, score.metric): score for score in scores}
    out = Table("class", *(f"{metric}, n" for metric in metrics))
    for group in groups:
        out.add_row(markup(group.removeprefix("class ")), *(_brief(found[group, metric]) for metric in metrics))
    return out


def markdown(scores: Sequence[Score]) -> str:
    """The scores over all examples as a Markdown table."""
    return markdown_table(HEADER, rows_of(scores))


def rows_of(scores: Sequence[Score]) -> list[list[str]]:
    """The cells of HEADER for the scores over all examples, in order.

    Metrics of a task that are n/a for the same reason share a row, which names them.
    """
    rows = []
    missing: dict[tuple[str, str], list[str]] = {}
    for score in scores:
        if score.group:
            continue
        if score.value is not None:
            rows.append([*_numbers(score), score.definition, score.note])
            continue
        together = missing.setdefault((score.task, score.note), [])
        together.append(score.metric)
        if len(together) == 1:
            rows.append([*_numbers(score), score.definition, score.note])
    for row in rows:
        if len(together := missing.get((row[0], row[-1]), [])) > 1 and row[2] == "n/a":
            row[1], row[-2], row[-1] = f"{len(together)} metrics", "", f"{row[-1]}: {', '.join(together)}"
    return rows


def to_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One JSON object per score, keys as in Score; n/a is null."""
    return [asdict(score) for score in scores]


def _numbers(score: Score) -> list[str]:
    value = "n/a" if score.value is None else f"{score.value:z.4f}"
    return [score.task, score.metric, value, interval_text(score), str(score.n)]


def interval_text(score: Score) -> str:
    """`low .. high`, `too few`, or empty."""
    if score.low is None or score.high is None:
        return "too few" if score.interval == "too few" else ""
    return f"{score.low:z.4f} .. {score.high:z.4f}"


def _brief(score: Score) -> str:
    if score.value is None:
        return "n/a, 0"
    interval = interval_text(score)
    return f"{score.value:z.3f}{f' ({interval})' if interval else ''}, {score.n}"
