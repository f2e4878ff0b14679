"""Greedy predictions of a few examples by the model in training, to read next to the loss."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bigchem.data.loader import Loader
from bigchem.data.order.steps import Step
from bigchem.data.packing import pack
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import EOS, PAD, Tokenizer
from bigchem.train.checkpoint.probe import unpacked
from bigchem.train.engine import Engine

MAX_TOKENS = 64
"""Longest prediction. There is no key-value cache: each token costs a forward pass over all examples."""


@dataclass(frozen=True)
class Sample:
    """One example and its prediction. The source includes the task's prompt."""

    task: str
    source: str
    reference: str
    prediction: str

    def as_json(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Samples:
    """Token ids of the examples, with end tokens, and their tasks."""

    sources: list[list[int]]
    targets: list[list[int]]
    task_ids: list[int]
    tokenizer: Tokenizer

    @staticmethod
    def of(loader: Loader, step: Step, data: Data, per_task: int) -> Samples:
        """The first `per_task` examples of each task in a step, the same on every rank."""
        chosen = np.concatenate([np.flatnonzero(step.task_ids == t)[:per_task] for t in np.unique(step.task_ids)])
        tokenizer = Tokenizer.load(data.tokenizer_dir)
        if not len(chosen):
            return Samples([], [], [], tokenizer)
        batch = loader.read(step, chosen)
        sources = unpacked(batch.source_ids, batch.source_cu_seqlens)
        targets = unpacked(batch.target_ids, batch.target_cu_seqlens)
        return Samples(sources, targets, batch.task_ids.tolist(), tokenizer)

    def predict(self, engine: Engine) -> list[Sample]:
        """Greedy decoding, the same on every rank. All take rank 0's tokens, so they finish together."""
        if not self.sources:
            return []
        predicted: list[list[int]] = [[] for _ in self.sources]
        active = list(range(len(self.sources)))
        for _ in range(MAX_TOKENS):
            # The model does not see the label at the predicted position, so any value will do.
            batch = pack(
                [np.array(self.sources[i]) for i in active],
                [np.array([*predicted[i], PAD]) for i in active],
                np.array([self.task_ids[i] for i in active]),
            )
            for i, token in zip(active, engine.next_tokens(batch), strict=True):
                predicted[i].append(token)
            active = [i for i in active if predicted[i][-1] != EOS]
            if not active:
                break
        texts = (self.tokenizer.decode_batch(side) for side in (self.sources, self.targets, predicted))
        names = [engine.tasks[task] for task in self.task_ids]
        return [Sample(*fields) for fields in zip(names, *texts, strict=True)]
