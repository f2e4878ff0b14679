"""Runs and scores, as result files hold them (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from bigchem.base.errors import UserError
from bigchem.sweep.analysis.fit import Estimate

Regime = Literal["together", "alone"]
REGIMES: tuple[Regime, ...] = ("together", "alone")
LOSS = "loss"
"""Mean token cross-entropy on the split: every task has it, beside the protocol's metrics."""


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


@dataclass(frozen=True)
class Score:
    """One metric of one task of one run. estimate: None if the metric is n/a; note says why."""

    run: Run
    task: str
    metric: str
    estimate: Estimate | None
    definition: str = ""
    note: str = ""
    n: int | None = None
    """Examples that count; for the loss, target tokens."""


@dataclass(frozen=True)
class Results:
    """What was read. notes: sentences that a reader of the analysis must know."""

    runs: tuple[Run, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()


def higher_is_better(metric: str, where: str | None = None) -> bool:
    """The metric's direction, from the protocol; UserError for a metric that it does not define.

    where: the file and line that name it.
    """
    from bigchem.evaluate.protocol.definitions import HIGHER_IS_BETTER

    if metric == LOSS:
        return False
    if metric not in HIGHER_IS_BETTER:
        close = get_close_matches(metric, [LOSS, *HIGHER_IS_BETTER], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "bigchem/evaluate/protocol has all of them"
        raise UserError(f"unknown metric '{metric}'", where, hint)
    return bool(HIGHER_IS_BETTER[metric])
