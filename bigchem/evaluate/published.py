"""Published numbers on ChEBI-20's test split, for comparison.

published.json has them and their origin: as printed in the papers of MolT5 (Edwards et al. 2022) and Text+Chem T5
(Christofidellis et al. 2023), and the released predictions of MolT5's authors re-scored by their own scripts, which the
protocol reproduces. The two differ by up to .09 (MACCS): compare a model with the re-scored ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from bigchem.base.printable import markdown_table
from bigchem.evaluate.protocol.score_task import Score

Origin = Literal["printed", "rescored"]
_LABELS: dict[Origin, str] = {"printed": "as printed", "rescored": "released predictions, re-scored"}
_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """A row of published numbers. values: by metric; None if not published."""

    model: str
    origin: Origin
    values: dict[str, float | None]

    @property
    def label(self) -> str:
        """The row's name."""
        return f"{self.model}, {_LABELS[self.origin]}"


EXAMPLES = 3300
"""Number of examples of ChEBI-20's test split."""


@cache
def published() -> dict[str, tuple[Published, ...]]:
    """Task -> published rows; for each model the printed one first. No FCD: theirs depends on another padding, see
    docs/decisions.md."""
    table = json.loads(_FILE.read_text(encoding="utf-8"))["tasks"]
    origins: tuple[Origin, ...] = ("printed", "rescored")
    return {
        task: tuple(
            Published(model["model"], origin, dict(zip(found["metrics"], model[origin], strict=True)))
            for model in found["models"]
            for origin in origins
            if origin in model
        )
        for task, found in table.items()
    }


def comparison_tables(scores: Sequence[Score], name: str) -> str:
    """Markdown: for each task with published numbers, a table of them whose last row, labelled `name`, has the scores.

    Empty if no task has scores by metrics with published numbers.
    """
    parts = []
    for task, rows in published().items():
        own = {score.metric: score for score in scores if score.task == task and not score.group}
        metrics = list(rows[0].values)
        if own.keys().isdisjoint(metrics):
            continue
        n = max(score.n for metric, score in own.items() if metric in metrics)
        mine = [own[metric].value if metric in own else None for metric in metrics]
        lines = [_line(row.label, EXAMPLES, list(row.values.values())) for row in rows]
        table = markdown_table(("model", "n", *metrics), [*lines, _line(f"**{name}**", n, mine)])
        comparable = _COMPARABLE.format(examples=EXAMPLES, n=n)
        parts.append(f"## {task}: published on ChEBI-20's test split\n\n{table}\n{comparable}\n")
    return "\n".join(parts)


_COMPARABLE = (
    "Comparable if the data are ChEBI-20's test split: {examples:,} examples, here {n:,}. Compare with the re-scored "
    "rows: they use the same protocol as the last row; printed rows use their papers' scripts."
)


def _line(name: str, n: int, values: Sequence[float | None]) -> list[str]:
    return [name, f"{n:,}", *("-" if value is None else f"{value:.3f}" for value in values)]
