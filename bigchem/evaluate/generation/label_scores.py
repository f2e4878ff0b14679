"""How probable a model finds each label of a task, given a source, without generating.

The encoder runs once per source. All labels of a source are one decoder sequence, side by side: a mask lets a token see
only those before it in its own label, and T5's position bias depends on distances alone. So the outputs are those of
one sequence per label, but the keys and values of the source are computed once. Of several labels per example, one
decoder sequence has all names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bigchem.base.errors import UserError
from bigchem.data.text.tokenizer import PAD, Tokenizer
from bigchem.tasks import Task

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LABEL_SCORES = "label_log_probabilities"
"""The key of a line of predictions with its label_scores."""
SHOWN = 10
"""Labels of one example that tables show."""
MOST_TOKENS = 256
"""Decoder tokens of one source at a time: their attention scores grow with the square."""
_LOGITS = 1 << 26
"""Logits in memory at a time: 256 MB of float32."""
_START = PAD


def has_labels(task: Task) -> bool:
    """Whether a task's targets are one label or several."""
    return task.target_domain in ("label", "labels")


def most_probable(task: Task, scores: Sequence[float]) -> dict[str, float]:
    """Probabilities from one source's label_scores: of the SHOWN most probable labels, the best first; of several
    labels, that of the value 1, for each in order."""
    if task.target_domain == "labels":
        return dict(zip(task.labels, expit(scores).tolist(), strict=True))
    found = zip(task.labels, np.exp(scores).tolist(), strict=True)
    return dict(sorted(found, key=lambda item: -item[1])[:SHOWN])


@torch.no_grad()
def label_scores(
    model: Any, tokenizer: Tokenizer, task: Task, ids: Tensor, batch_tokens: int, memory: Tensor | None = None
) -> Floats:
    """[sources, labels], in the order of task.labels.

    One label per example: log P(label | source), end token included. Several: the log-odds of 1 against 0 for each
    name, at the first token in which they differ, given the source and the more probable values of the names before.

    model: transformers' T5. ids [sources, longest]: padded at the end. batch_tokens: decoder tokens at a time. memory:
    the encoder's output for ids, if known. UserError if the tokenizer gives two labels the same tokens.
    """
    labels = _Names(tokenizer, task) if task.target_domain == "labels" else _Labels(tokenizer, task)
    step = max(1, min(batch_tokens // labels.width, _LOGITS // (labels.outputs * model.config.vocab_size)))
    parts = zip((encoded(model, ids) if memory is None else memory).split(step), (ids != PAD).split(step), strict=True)
    return np.concatenate([labels.score(_Sources(model, *part)) for part in parts])


@torch.no_grad()
def encoded(model: Any, ids: Tensor) -> Tensor:
    """The encoder's output for padded sources: [sources, longest, d_model]."""
    memory: Tensor = model.encoder(input_ids=ids, attention_mask=(ids != PAD).long()).last_hidden_state
    return memory


@dataclass(frozen=True)
class _Sources:
    """Encoded sources: memory [sources, longest, d_model], mask [sources, longest]."""

    model: Any
    memory: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.memory)

    def only(self, which: Ints) -> _Sources:
        rows = torch.from_numpy(which).to(self.memory.device)
        return _Sources(self.model, self.memory[rows], self.mask[rows])

    def logits(self, tokens: Tensor, places: Tensor, blocks: Tensor | None = None) -> Tensor:
        """The outputs [sources, places, vocabulary] at places [sources, places] of decoder inputs [sources, T].

        blocks [sources, T]: a token sees only its own block's; without it, all before it.
        """
        device = self.memory.device
        seen = None
        if blocks is not None:
            visible = (blocks[:, :, None] == blocks[:, None, :]).tril()
            # Added to the scores; transformers takes masks of four dimensions as they are.
            seen = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None].to(device)
        hidden = self.model.decoder(
            input_ids=tokens.to(device),
            attention_mask=seen,
            encoder_hidden_states=self.memory,
            encoder_attention_mask=self.mask.long(),
            use_cache=False,
        ).last_hidden_state
        needed = hidden.gather(1, places.to(device)[..., None].expand(-1, -1, hidden.shape[-1]))
        if self.model.config.scale_decoder_outputs:
            needed = needed * self.model.model_dim**-0.5
        logits: Tensor = self.model.lm_head(needed).float()
        return logits


class _Labels:
    """The labels of a task with one per example. width, outputs: decoder tokens of a source at a time, and those whose
    output is needed, at most."""

    def __init__(self, tokenizer: Tokenizer, task: Task) -> None:
        labels = tokenizer.encode_batch(task.labels)
        _refuse_equal(labels, task)
        self._groups = [_Choices.of(group) for group in _grouped(labels)]
        self.width = max(len(group.tokens) for group in self._groups)
        self.outputs = max(len(group.places) for group in self._groups)

    def score(self, sources: _Sources) -> Floats:
        return np.concatenate([group.score(sources) for group in self._groups], axis=1)


@dataclass(frozen=True)
class _Choices:
    """Token sequences side by side.

    tokens, blocks [T]: decoder inputs, and the block that each belongs to. places [N]: where the output is needed.
    scored [scored tokens, 3]: of each its sequence, its index into places, and its id. count: of sequences.
    """

    tokens: Tensor
    blocks: Tensor
    places: Tensor
    scored: Tensor
    count: int

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> _Choices:
        inputs = sorted({(_START, *ids[:-1]) for ids in sequences})
        # In this order, what begins like an input follows it: an input that another continues needs no own block.
        blocks = [own for own, after in zip(inputs, [*inputs[1:], ()], strict=True) if after[: len(own)] != own]
        starts = np.cumsum([0, *map(len, blocks)])
        at = {
            block[:end]: int(start) + end - 1
            for block, start in zip(blocks, starts, strict=False)
            for end in range(1, len(block) + 1)
        }
        needed = [
            (which, at[(_START, *ids[:place])], ids[place])
            for which, ids in enumerate(sequences)
            for place in range(len(ids))
        ]
        places = sorted({place for _, place, _ in needed})
        index = {place: number for number, place in enumerate(places)}
        return cls(
            torch.tensor([token for block in blocks for token in block]),
            torch.tensor([number for number, block in enumerate(blocks) for _ in block]),
            torch.tensor(places),
            torch.tensor([(which, index[place], token) for which, place, token in needed]),
            len(sequences),
        )

    def score(self, sources: _Sources) -> Floats:
        """log P of each sequence: [sources, sequences]."""
        tokens, places, blocks = (x.expand(len(sources), -1) for x in (self.tokens, self.places, self.blocks))
        logits = sources.logits(tokens, places, blocks)
        which, output, token = self.scored.to(logits.device).T
        each = (logits[:, output, token] - logits.logsumexp(-1)[:, output]).double()
        sums = each.new_zeros(len(sources), self.count).index_add_(1, which, each)
        return np.asarray(sums.cpu().numpy())


class _Names:
    """The names of a task with several labels. width, outputs: as of _Labels.

    The values are guessed, as those of the first source, and one pass gives the log-odds of every name after the
    guessed values before it. Sources for which some are other than guessed go again with what was found. Each pass
    settles at least one more name, as if names were decided in order; few sources need more than two.
    """

    def __init__(self, tokenizer: Tokenizer, task: Task) -> None:
        ends = [";"] * (len(task.labels) - 1) + [""]
        both = [
            tokenizer.encode_batch([f"{name}={value}{end}" for value in (0, 1)])
            for name, end in zip(task.labels, ends, strict=True)
        ]
        for pair in both:
            _refuse_equal(pair, task)
        # The tokenizer splits texts before spaces first: the tokens of a text are those of its parts.
        self._entries = [[ids[:-1] for ids in pair] for pair in both]
        self._firsts = [next(n for n, (no, yes) in enumerate(zip(*pair, strict=False)) if no != yes) for pair in both]
        self._tokens = torch.tensor([[ids[n] for ids in pair] for pair, n in zip(both, self._firsts, strict=True)])
        self.width = sum(max(map(len, pair)) for pair in both)
        self.outputs = len(both)

    def score(self, sources: _Sources) -> Floats:
        odds = np.zeros((len(sources), self.outputs))
        guessed = np.zeros_like(odds, dtype=np.int64)
        todo = np.arange(len(sources))
        if len(sources) > 1:
            guessed[:] = self.score(sources.only(todo[:1])) > 0
        for _ in range(self.outputs + 1):
            odds[todo] = self._log_odds(sources.only(todo), guessed[todo])
            found = (odds > 0).astype(np.int64)
            todo = np.flatnonzero((found != guessed).any(axis=1))
            guessed = found
            if not len(todo):
                break
        return odds

    def _log_odds(self, sources: _Sources, values: Ints) -> Floats:
        inputs, places = [], []
        for own in values.tolist():
            parts = [entry[value] for entry, value in zip(self._entries, own, strict=True)]
            starts = np.cumsum([0, *map(len, parts[:-1])])
            inputs.append(torch.tensor([_START, *chain.from_iterable(parts)]))
            places.append(torch.from_numpy(starts + self._firsts))
        logits = sources.logits(pad_sequence(inputs, True, PAD), torch.stack(places))
        no, yes = logits.gather(2, self._tokens.to(logits.device).expand(len(logits), -1, -1)).double().unbind(-1)
        return np.asarray((yes - no).cpu().numpy())


def _grouped(labels: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Consecutive labels of at most MOST_TOKENS together; a longer one alone."""
    group: list[Sequence[int]] = []
    for ids in labels:
        if group and sum(map(len, group)) + len(ids) > MOST_TOKENS:
            yield group
            group = []
        group.append(ids)
    yield group


def _refuse_equal(sequences: Sequence[Sequence[int]], task: Task) -> None:
    if len(set(map(tuple, sequences))) < len(sequences):
        what = f"the tokenizer gives different labels the same tokens: {', '.join(task.labels)}"
        raise UserError(what, f"tasks.{task.name}.labels", "choose labels of other characters")
