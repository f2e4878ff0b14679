"""How probable a model finds each label of a task, given a source, without generating.

The encoder runs once per source. All labels of a source are one decoder sequence, side by side: a mask lets a token see
only those before it in its own label, and T5's position bias depends on distances alone. So the outputs are those of
one sequence per label, but the keys and values of the source are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
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
def label_scores(model: Any, tokenizer: Tokenizer, task: Task, ids: Tensor, batch_tokens: int) -> Floats:
    """[sources, labels], in the order of task.labels.

    One label per example: log P(label | source), end token included. Several: the log-odds of 1 against 0 for each
    name, given the source and the more probable values of the names before it.

    model: transformers' T5. ids [sources, longest]: padded at the end. batch_tokens: decoder tokens at a time.
    UserError if the tokenizer gives two labels the same tokens.
    """
    mask = (ids != PAD).long()
    sources = _Sources(model, model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask, batch_tokens)
    if task.target_domain == "labels":
        return _log_odds(sources, tokenizer, task)
    labels = tokenizer.encode_batch(task.labels)
    _refuse_equal(labels, task)
    groups = [_Choices.of(group, 0) for group in _grouped(labels)]
    return np.concatenate([sources.score([group] * len(ids)) for group in groups], axis=1)


def _log_odds(sources: _Sources, tokenizer: Tokenizer, task: Task) -> Floats:
    """After a value comes `;` or the end; both count."""

    @cache
    def choices(before: str, name: str) -> _Choices:
        ends = ("",) if name == task.labels[-1] else (";", "")
        texts = [f"{before}{name}={value}{end}" for value in (0, 1) for end in ends]
        encoded = tokenizer.encode_batch(texts)
        listed = [ids[:-1] if text.endswith(";") else ids for text, ids in zip(texts, encoded, strict=True)]
        _refuse_equal(listed, task)
        return _Choices.of(listed, next(n for n, ids in enumerate(zip(*listed, strict=False)) if len(set(ids)) > 1))

    decided = [""] * len(sources.memory)
    columns = []
    for name in task.labels:
        found = sources.score([choices(before, name) for before in decided])
        zero, one = np.logaddexp.reduce(found.reshape(len(found), 2, -1), axis=2).T
        columns.append(one - zero)
        decided = [f"{before}{name}={int(odds > 0)}; " for before, odds in zip(decided, columns[-1], strict=True)]
    return np.stack(columns, axis=1)


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
    def of(cls, sequences: Sequence[Sequence[int]], given: int) -> _Choices:
        """given: how many first tokens, common to all sequences, are not scored."""
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
            for place in range(given, len(ids))
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


@dataclass(frozen=True)
class _Sources:
    """Encoded sources: memory [sources, longest, d_model], mask [sources, longest]."""

    model: Any
    memory: Tensor
    mask: Tensor
    batch_tokens: int

    def score(self, choices: Sequence[_Choices]) -> Floats:
        """log P of each source's choices: [sources, choices]. All have equally many."""
        width = max(len(each.tokens) for each in choices)
        outputs = max(len(each.places) for each in choices)
        step = max(1, min(self.batch_tokens // width, _LOGITS // (outputs * self.model.config.vocab_size)))
        parts = [slice(start, start + step) for start in range(0, len(choices), step)]
        return np.concatenate([self._score_part(part, choices[part]) for part in parts])

    def _score_part(self, part: slice, choices: Sequence[_Choices]) -> Floats:
        logits = self._outputs(part, choices)
        firsts = np.cumsum([0, *(len(each.places) for each in choices)])
        scored = [
            each.scored + torch.tensor([number * each.count, int(first), 0])
            for number, (each, first) in enumerate(zip(choices, firsts, strict=False))
        ]
        which, output, token = torch.cat(scored).to(logits.device).T
        log_probability = (logits[output, token] - logits.logsumexp(-1)[output]).double()
        sums = log_probability.new_zeros(len(choices) * choices[0].count).index_add_(0, which, log_probability)
        return np.asarray(sums.view(len(choices), -1).cpu().numpy())

    def _outputs(self, part: slice, choices: Sequence[_Choices]) -> Tensor:
        """The logits of every choice's places: [places of all sources, vocabulary] float32."""
        device = self.memory.device
        tokens = pad_sequence([each.tokens for each in choices], True, PAD)
        blocks = pad_sequence([each.blocks for each in choices], True, -1)
        seen = (blocks[:, :, None] == blocks[:, None, :]).tril()
        hidden = self.model.decoder(
            input_ids=tokens.to(device),
            # Added to the scores; transformers takes masks of four dimensions as they are.
            attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None].to(device),
            encoder_hidden_states=self.memory[part],
            encoder_attention_mask=self.mask[part],
            use_cache=False,
        ).last_hidden_state
        rows = torch.cat([each.places + number * tokens.shape[1] for number, each in enumerate(choices)])
        needed = hidden.flatten(0, 1)[rows.to(device)]
        if self.model.config.scale_decoder_outputs:
            needed = needed * self.model.model_dim**-0.5
        logits: Tensor = self.model.lm_head(needed).float()
        return logits


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
