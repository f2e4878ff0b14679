"""Which metrics each task gets, and what their definition ids say."""

from __future__ import annotations

from bigchem.evaluate.protocol.actions import ACTIONS
from bigchem.evaluate.protocol.captioning import CAPTIONING
from bigchem.evaluate.protocol.generation import GENERATION
from bigchem.evaluate.protocol.metric import Metric
from bigchem.evaluate.protocol.reactions import REACTION, ROUND_TRIPS

PROTOCOL: dict[str, tuple[Metric, ...]] = {
    "captioning": CAPTIONING,
    "generation": GENERATION,
    "forward": REACTION,
    "retrosynthesis": (*REACTION, *ROUND_TRIPS),
    "actions": ACTIONS,
}
"""Task -> its metrics, in the order of its table."""

DEFINITIONS: dict[str, str] = {metric.definition: metric.meaning for task in PROTOCOL.values() for metric in task}
"""Definition id -> its meaning."""

HIGHER_IS_BETTER: dict[str, bool] = {
    metric.name: metric.higher_is_better for task in PROTOCOL.values() for metric in task
}
"""Of every metric of every task, by name."""
