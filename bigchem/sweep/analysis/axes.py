"""Scores against an axis of a sweep, such as the learning rate or the temperature of the mixture (PURE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bigchem.sweep.scores.aggregate import Cell, cells_of
from bigchem.sweep.scores.axes import by_setting
from bigchem.sweep.scores.records import LOSS, Score, tasks_of


@dataclass(frozen=True)
class AxisScores:
    """cells: by value of the axis, as text; ascending if the values are numbers. numbers: those, or None."""

    axis: str
    cells: Mapping[str, tuple[Cell, ...]]

    @property
    def numbers(self) -> dict[str, float] | None:
        """Value as text -> as a number; None unless all are numbers above zero."""
        try:
            found = {value: float(value) for value in self.cells}
        except ValueError:
            return None
        return found if min(found.values()) > 0 else None


def axis_scores(by_axis: Mapping[str, Sequence[Score]]) -> tuple[AxisScores, ...]:
    """The scores of every value of each axis. Without losses where values have different tokenizers: a token is not
    the same then."""
    found = []
    for axis, scores in by_axis.items():
        tokenizers = {s.run.training.tokenizer for s in scores if s.run.training is not None}
        kept = [score for score in scores if score.metric != LOSS or len(tokenizers) < 2]
        tasks = tasks_of(kept)
        cells = {value: cells_of(group, tasks) for value, group in by_setting(kept, axis).items()}
        one = AxisScores(axis, cells)
        order = one.numbers
        found.append(AxisScores(axis, dict(sorted(cells.items(), key=lambda item: order[item[0]]))) if order else one)
    return tuple(found)
