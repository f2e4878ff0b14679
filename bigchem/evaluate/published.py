"""Numbers that others have published on ChEBI-20's test split, to stand beside one's own.

Sources: MolT5 (Edwards et al. 2022) for T5 and MolT5, Text+Chem T5 (Christofidellis et al. 2023) for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from bigchem.evaluate.protocol import Score

_CAPTIONING = ("bleu2", "bleu4", "rouge1", "rouge2", "rougeL", "meteor")
_GENERATION = ("bleu", "exact", "levenshtein", "maccs", "rdk", "morgan", "validity")
PUBLISHED: dict[str, tuple[tuple[str, ...], dict[str, tuple[float | None, ...]]]] = {
    "captioning": (
        _CAPTIONING,
        {
            "T5-base": (0.511, 0.423, 0.607, 0.451, 0.550, 0.539),
            "MolT5-small": (0.519, 0.436, 0.620, 0.469, 0.563, 0.551),
            "MolT5-base": (0.540, 0.457, 0.634, 0.485, 0.578, 0.569),
            "MolT5-large": (0.594, 0.508, 0.654, 0.510, 0.594, 0.614),
            "Text+Chem T5-base": (0.580, 0.490, 0.647, 0.498, None, 0.604),
            "Text+Chem T5-base augmented": (0.625, 0.542, 0.682, 0.543, 0.622, 0.648),
        },
    ),
    "generation": (
        _GENERATION,
        {
            "T5-base": (0.762, 0.069, 24.95, 0.731, 0.605, 0.545, 0.660),
            "T5-large": (0.854, 0.279, 16.72, 0.823, 0.731, 0.670, 0.902),
            "MolT5-base": (0.769, 0.081, 24.46, 0.721, 0.588, 0.529, 0.772),
            "MolT5-large": (0.854, 0.311, 16.07, 0.834, 0.746, 0.684, 0.905),
            "Text+Chem T5-base augmented": (None, 0.322, None, None, None, None, None),
        },
    ),
}
"""Task -> its metrics, and of each model their values. Published FCDs are left out: they are of another padding, see
docs/decisions.md."""


def beside(scores: Sequence[Score], name: str) -> str:
    """Markdown: for each task with published numbers a table of them with a row of the scores, called `name`, below.

    Empty where no task has any.
    """
    parts = []
    for task, (metrics, models) in PUBLISHED.items():
        own = {score.metric: score for score in scores if score.task == task}
        if not own:
            continue
        lines = [f"## {task}: published on ChEBI-20's test split", ""]
        lines += [f"| model | {' | '.join(metrics)} |", "|---|" + "---|" * len(metrics)]
        lines += [_line(model, values) for model, values in models.items()]
        lines.append(_line(f"**{name}**", [own[metric].value if metric in own else None for metric in metrics]))
        n = max(score.n for metric, score in own.items() if metric in metrics)
        lines += ["", f"Comparable if the data are ChEBI-20's test split: 3,300 examples, here {n:,}.", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _line(name: str, values: Sequence[float | None]) -> str:
    return f"| {name} | {' | '.join('-' if value is None else f'{value:.3f}' for value in values)} |"
