"""Predictions for the user's own inputs: a loaded model gives the k best outputs with their probabilities.

Used by `bigchem predict` and `bigchem serve`; `bigchem evaluate` predicts whole splits (generate.py).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigchem.base import environment
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.chemistry import dotted, try_parse
from bigchem.config import EvaluateConfig
from bigchem.data.text.tokenizer import EOS, Tokenizer
from bigchem.evaluate.generation.generate import batches_of, beam_search, load_generator, padded, precision_on
from bigchem.evaluate.generation.label_scores import label_scores
from bigchem.evaluate.trained import max_source_tokens as longest_of
from bigchem.tasks import CHEMISTRY, Task, tasks_of

_LOGITS = 1 << 26
"""Logits in memory at a time in log_probabilities: 256 MB of float32."""


@dataclass(frozen=True)
class Prediction:
    """One output of a model.

    log_probability: natural logarithm of P(text | source), end token included. score: the same per token, by which beam
    search ranks (transformers' sequences_scores). valid: whether RDKit parses it; None if the task's output is text.
    """

    text: str
    log_probability: float
    score: float
    valid: bool | None


class Predictor:
    """A consolidated model, loaded once. tasks: those it was trained on. max_source_tokens: longer sources are cut, and
    reported; None: as in training. precision: see `evaluate.precision`."""

    def __init__(self, model_dir: Path, *, max_source_tokens: int | None = None, precision: str = "auto") -> None:
        if not (model_dir / "config.json").is_file():
            raise UserError("no model here: config.json is missing", str(model_dir), "bigchem export makes one")
        self.model_dir = model_dir
        self.max_source_tokens = longest_of(model_dir) if max_source_tokens is None else max_source_tokens
        self.device = environment.device()
        self.tasks = tasks_of(model_dir).scored
        self._tokenizer = Tokenizer.load(model_dir)
        self._model: Any = load_generator(model_dir, self.device, precision_on(self.device, precision))

    def predict(
        self,
        task: str,
        texts: Sequence[str],
        config: EvaluateConfig,
        progress: Progress | None = None,
        deadline: float = math.inf,
        fields: Sequence[Mapping[str, str]] | None = None,
    ) -> list[list[Prediction]]:
        """The config.num_return best outputs for each text, best first. The task's prompt is added to the texts.

        Batches hold texts of similar length; the result is in the order of the texts. Thread-safe. UserError unless the
        task is one of the model's. deadline: on time.monotonic(); TimeoutError after it.
        fields: of each text, what a prompt takes from other columns.
        """
        about = self.tasks.find(task, str(self.model_dir))
        progress = progress or Progress(quiet=True)
        found: list[list[Prediction]] = [[] for _ in texts]
        with progress.bar(f"predicting {task}", len(texts)) as bar:
            for batch, ids in self._batches(about, texts, fields, config, progress):
                output = beam_search(self._model, ids, config, deadline)
                sums, counts = log_probabilities(self._model, ids.repeat_interleave(config.num_return, 0), output)
                texts_made = self._tokenizer.decode_batch(output.tolist())
                predictions = [
                    Prediction(text, total, total / count, _valid(about, text))
                    for text, total, count in zip(texts_made, sums.tolist(), counts.tolist(), strict=True)
                ]
                for place, i in enumerate(batch):
                    found[i] = predictions[place * config.num_return : (place + 1) * config.num_return]
                bar.advance(len(batch))
        return found

    def label_scores(
        self,
        task: str,
        texts: Sequence[str],
        config: EvaluateConfig,
        fields: Sequence[Mapping[str, str]] | None = None,
    ) -> list[list[float]]:
        """label_scores of each text for a task with labels. Arguments as of predict."""
        about = self.tasks.find(task, str(self.model_dir))
        found: list[list[float]] = [[] for _ in texts]
        for batch, ids in self._batches(about, texts, fields, config, Progress(quiet=True)):
            scores = label_scores(self._model, self._tokenizer, about, ids, config.batch_tokens)
            for i, own in zip(batch, scores.tolist(), strict=True):
                found[i] = own
        return found

    def num_cut(self, task: str, texts: Sequence[str]) -> int:
        """How many of these texts `predict` cuts."""
        encoded = self._encoded(self.tasks.find(task, str(self.model_dir)), texts, [{}] * len(texts))
        return sum(len(ids) > self.max_source_tokens for ids in encoded)

    def _batches(
        self,
        task: Task,
        texts: Sequence[str],
        fields: Sequence[Mapping[str, str]] | None,
        config: EvaluateConfig,
        progress: Progress,
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batches of texts of similar length: their numbers, and their padded tokens."""
        sources = self._sources(task, texts, fields or [{}] * len(texts), progress)
        lengths = np.array([len(source) for source in sources], dtype=np.int64)
        longest_first = [int(i) for i in np.argsort(-lengths, kind="stable")]
        for batch in batches_of(longest_first, lengths, config.batch_tokens):
            yield batch, padded([sources[i] for i in batch], self.device)

    def _sources(
        self, task: Task, texts: Sequence[str], fields: Sequence[Mapping[str, str]], progress: Progress
    ) -> list[list[int]]:
        encoded = self._encoded(task, texts, fields)
        cap = self.max_source_tokens
        long = [number for number, ids in enumerate(encoded, 1) if len(ids) > cap]
        if long:
            progress.say(f"inputs cut at {cap} tokens: {len(long)}, the first is number {long[0]}")
        return [ids if len(ids) <= cap else [*ids[: cap - 1], EOS] for ids in encoded]

    def _encoded(self, task: Task, texts: Sequence[str], fields: Sequence[Mapping[str, str]]) -> list[list[int]]:
        return self._tokenizer.encode_batch(
            [task.prompted(text, others) for text, others in zip(texts, fields, strict=True)]
        )


@torch.no_grad()
def log_probabilities(model: Any, ids: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log P(output | source) of each row up to and including the end token, and its number of tokens: [rows] each.

    ids [rows, source tokens]: padded sources. output [rows, tokens]: from beam_search, start token first.
    """
    step = max(1, _LOGITS // (output.shape[1] * model.config.vocab_size))
    parts = []
    for source, made in zip(ids.split(step), output.split(step), strict=True):
        labels = made[:, 1:]
        logits = model(input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=made[:, :-1]).logits
        each = logits.float().log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        ends = (labels == EOS).cumsum(1)
        counted = (ends == 0) | ((ends == 1) & (labels == EOS))
        parts.append(torch.stack([(each * counted).sum(1), counted.sum(1)]))
    sums, counts = torch.cat(parts, dim=1)
    return sums, counts


def _valid(task: Task, text: str) -> bool | None:
    return try_parse(dotted(text)) is not None if task.target_domain in CHEMISTRY else None
