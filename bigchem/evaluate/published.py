"""Numbers of others on ChEBI-20's test split, to stand beside one's own.

published.json has them and says where they are from: what the papers of MolT5 (Edwards et al. 2022) and Text+Chem T5
(Christofidellis et al. 2023) print, and what the predictions that MolT5's authors released score by their own scripts,
whose values the protocol's are. The two differ, by up to .09 of MACCS: a model is compared with the second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from bigchem.evaluate.protocol.score_task import Score

Origin = Literal["printed", "rescored"]
_LABELS: dict[Origin, str] = {"printed": "as printed", "rescored": "released predictions, re-scored"}
_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """A row of another's numbers. values: by metric; None where there is none."""

    model: str
    origin: Origin
    values: dict[str, float | None]

    @property
    def label(self) -> str:
        """The row's name."""
        return f"{self.model}, {_LABELS[self.origin]}"


EXAMPLES = 3300
"""Of ChEBI-20's test split."""


@cache
def published() -> dict[str, tuple[Published, ...]]:
    """Task -> the rows of others, of each model first what is printed. FCDs are left out: they are of another padding,
    see docs/decisions.md."""
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
    """Markdown: for each task with published numbers a table of them with a row of the scores, called `name`, below.

    Empty where no task has any.
    """
    parts = []
    for task, rows in published().items():
        own = {score.metric: score for score in scores if score.task == task and not score.group}
        if not own:
            continue
        metrics = list(rows[0].values)
        lines = [f"## {task}: published on ChEBI-20's test split", ""]
        lines += [f"| model | n | {' | '.join(metrics)} |", "|---|---|" + "---|" * len(metrics)]
        lines += [_line(row.label, EXAMPLES, list(row.values.values())) for row in rows]
        n = max(score.n for metric, score in own.items() if metric in metrics)
        lines.append(_line(f"**{name}**", n, [own[metric].value if metric in own else None for metric in metrics]))
        lines += ["", _COMPARABLE.format(examples=EXAMPLES, n=n), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


_COMPARABLE = (
    "Comparable if the data are ChEBI-20's test split: {examples:,} examples, here {n:,}. Papers print what scripts "
    "gave them at the time; re-scored rows are by the protocol of the last row: compare with these."
)


def _line(name: str, n: int, values: Sequence[float | None]) -> str:
    cells = (f"{n:,}", *("-" if value is None else f"{value:.3f}" for value in values))
    return f"| {name} | {' | '.join(cells)} |"
