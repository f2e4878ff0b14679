"""Runs and scores, as result files hold them (PURE)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from statistics import fmean
from typing import Any, Literal

from bigchem.base.errors import UserError
from bigchem.sweep.scores.estimate import Estimate
from bigchem.tasks import Task, Tasks, shipped

Regime = Literal["together", "alone"]
REGIMES: tuple[Regime, ...] = ("together", "alone")
SizeAxis = Literal["non_embedding", "flops"]
SIZE_AXES: dict[SizeAxis, str] = {"non_embedding": "parameters without embeddings", "flops": "training FLOPs"}
"""Other measures of a model's size than its parameters, and their names."""
LOSS = "loss"
"""Mean token cross-entropy on the split: every task has it, beside the protocol's metrics."""


@dataclass(frozen=True)
class Scale:
    """What a metric's numbers mean. lowest, highest: the values it can have; infinite if unknown."""

    higher_is_better: bool
    lowest: float
    highest: float

    @property
    def bounded(self) -> bool:
        """Whether it is a share, a correlation or the like, so that gains of several such metrics have a mean."""
        return math.isfinite(self.highest - self.lowest)


@dataclass(frozen=True)
class Training:
    """What a model was trained with: see docs/evaluation.md. None: unknown.

    examples, tokens: of each task. schedule: as text. axes, per_size, selected, alone: the run's
    place in its sweep.
    """

    steps: int
    global_tokens: int
    lr: float
    schedule: str
    optimizer: str
    dropout: float
    pretrained: bool
    steps_done: int | None = None
    early: str | None = None
    examples: dict[str, int] | None = None
    tokens: dict[str, int] | None = None
    flops: float | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    per_size: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    alone: str | None = None
    tokenizer: str | None = None
    """Its fingerprint."""


@dataclass(frozen=True)
class Run:
    """One evaluated model. Fields that a score table does not have are None or empty."""

    name: str
    parameters: int
    regime: Regime
    seed: int
    source: str
    """The file it was read from."""
    preset: str = ""
    sha256: str = ""
    mixture: dict[str, float] = field(default_factory=dict)
    """Share of each trained task; they sum to 1."""
    step: int | None = None
    tokens: int | None = None
    fingerprint: str | None = None
    split: str = ""
    decoding: str = ""
    protocol: str = ""
    predictions: dict[str, str] = field(default_factory=dict)
    """Task -> its file of predictions, if available."""
    tasks: Tasks = field(default_factory=shipped)
    """The records of its scores' tasks."""
    non_embedding_parameters: int | None = None
    training: Training | None = None

    def measure(self, axis: SizeAxis) -> float | None:
        """Another measure of its size; None: unknown."""
        if axis == "non_embedding":
            return self.non_embedding_parameters
        return None if self.training is None else self.training.flops


@dataclass(frozen=True)
class Score:
    """One metric of one task of one run. estimate: None if the metric is n/a; note says why."""

    run: Run
    task: str
    metric: str
    scale: Scale
    estimate: Estimate | None
    definition: str = ""
    note: str = ""
    n: int | None = None
    """Examples that count."""


@dataclass(frozen=True)
class Results:
    """What was read. tasks: see tasks_of. notes: sentences that a reader of the analysis must know. caveats: those that
    stand before its claim. apart: scores of shared models on other mixtures than the claim's, see mixtures.py. by_axis:
    of every value of an axis that has several, see axes.py."""

    runs: tuple[Run, ...]
    scores: tuple[Score, ...]
    tasks: Tasks
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    apart: tuple[Score, ...] = ()
    by_axis: Mapping[str, Sequence[Score]] = field(default_factory=dict)

    @property
    def every_run(self) -> tuple[Run, ...]:
        """Also those of other mixtures and of other values of axes."""
        others = [*self.apart, *(score for scores in self.by_axis.values() for score in scores)]
        return tuple({id(run): run for run in (*self.runs, *(score.run for score in others))}.values())

    @property
    def shared_flops(self) -> dict[int, float]:
        """Mean training FLOPs of the shared models, by size; without sizes of which some run's are unknown."""
        found: dict[int, list[float | None]] = {}
        for run in self.runs:
            if run.regime == "together":
                found.setdefault(run.parameters, []).append(run.measure("flops"))
        known = {size: [one for one in each if one] for size, each in found.items()}
        return {size: fmean(each) for size, each in known.items() if len(each) == len(found[size])}

    def without(self, runs: Iterable[Run]) -> "Results":
        """The same without some runs."""
        gone = {id(run) for run in runs}
        kept = ([s for s in scores if id(s.run) not in gone] for scores in (self.scores, self.apart))
        scores, apart = map(tuple, kept)
        return replace(self, runs=tuple(r for r in self.runs if id(r) not in gone), scores=scores, apart=apart)


def tasks_of(scores: Iterable[Score]) -> Tasks:
    """The records of the scores' tasks: those that ship in their order, then others as they first appear. An id is the
    task's place, since files may use one id for different tasks."""
    first: dict[str, Task] = {}
    for score in scores:
        first.setdefault(score.task, score.run.tasks[score.task])
    names = [*(name for name in shipped() if name in first), *(name for name in first if name not in shipped())]
    return Tasks(replace(first[name], id=place) for place, name in enumerate(names))


def scale_of(metric: str, stated: bool | None = None, where: str | None = None) -> Scale:
    """The scale of a metric, from the protocol; of a package's metric only the direction is known.

    stated: the direction that the file gives; without it, the metric's package has to be installed. where: the file and
    line. UserError for a metric that is unknown and has no stated direction, or that is stated to have another.
    """
    from bigchem.evaluate.protocol.definitions import RANGES, higher_is_better

    lowest, highest = (0.0, math.inf) if metric == LOSS else RANGES.get(metric, (-math.inf, math.inf))
    if metric != LOSS and metric not in RANGES and stated is not None:
        return Scale(stated, lowest, highest)
    better = False if metric == LOSS else higher_is_better(metric)
    if better is None:
        close = get_close_matches(metric, [LOSS, *RANGES], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "bigchem/evaluate/protocol has all of bigchem's"
        raise UserError(f"unknown metric '{metric}'", where, f"{hint}; for a package's, state `higher_is_better`")
    if stated not in (None, better):
        raise UserError(f"{metric}: `higher_is_better` is {stated}, but it is bigchem's, where it is {better}", where)
    return Scale(better, lowest, highest)
