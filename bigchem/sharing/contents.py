"""What a model card is made of."""

from dataclasses import dataclass, field
from typing import Any

from bigchem.base.printable import printable
from bigchem.evaluate.protocol.score_task import Score
from bigchem.model.presets import Shape
from bigchem.sharing.provenance import Provenance
from bigchem.tasks import Tasks

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Results:
    """The part of results.json that a card shows. model: `sha256`. training: `examples` by task, if counted."""

    metrics: list[Score]
    split: str
    data_fingerprint: str
    decoding: dict[str, int]
    max_source_tokens: int
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    precision: str = UNKNOWN


@dataclass(frozen=True)
class Card:
    """All that a card is made of. name: what the snippet loads: the folder, or its place on the hub. tasks: with
    targets; None: not recorded. results: of these very weights."""

    name: str
    trained: Provenance
    tasks: Tasks | None
    shape: Shape
    results: Results | None = None

    @property
    def title(self) -> str:
        """The model's name: its repository's, or its run's."""
        return printable(self.name.split("/")[-1] if "/" in self.name else self.trained.run, limit=96)
