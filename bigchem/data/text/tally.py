"""The figures of an audit, counted per text and added up over workers."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bigchem.data.text.tokenizer import UNK, Tokenizer


class Side(NamedTuple):
    """One side of a task's rows: split and task ("" for a plain file), and "source", "target" or "line"."""

    split: str
    task: str
    side: str


@dataclass(frozen=True)
class Limits:
    """Maximum lengths, prompt and end token included, and how many examples of each kind to collect."""

    max_source_tokens: int = 512
    max_target_tokens: int = 512
    examples: int = 3

    def of(self, side: Side) -> int:
        """The limit of a side; a plain file's lines are sources."""
        return self.max_target_tokens if side.side == "target" else self.max_source_tokens


@dataclass
class Tally:
    """Counts of one side. characters, tokens: of the texts alone, without prompt and end token.

    lengths: number of texts by tokens as the model sees them, with both. lost: the first texts that do not round-trip,
    and their decoded form. longest: (tokens, text).
    """

    characters: int = 0
    tokens: int = 0
    not_exact: int = 0
    with_unknown: int = 0
    unknown: int = 0
    over: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    lost: list[tuple[str, str]] = field(default_factory=list)
    longest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally, examples: int) -> None:
        """Adds the counts of later texts."""
        for name in ("characters", "tokens", "not_exact", "with_unknown", "unknown", "over"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths.update(other.lengths)
        self.lost = (self.lost + other.lost)[:examples]
        self.longest = heapq.nlargest(examples, self.longest + other.longest, key=lambda item: item[0])

    def percentile(self, percent: int) -> int:
        """The smallest length that this share of the texts does not exceed."""
        needed = self.lengths.total() * percent / 100
        for length in sorted(self.lengths):
            needed -= self.lengths[length]
            if needed <= 0:
                return length
        return 0

    def report(self) -> dict[str, Any]:
        """The figures, as --json prints them."""
        texts = self.lengths.total()
        return {
            "texts": texts,
            "not_exact": self.not_exact,
            "with_unknown": self.with_unknown,
            "unknown_rate": self.unknown / max(1, self.tokens),
            "tokens_per_character": self.tokens / max(1, self.characters),
            "tokens_per_text": self.tokens / max(1, texts),
            **{f"p{percent}": self.percentile(percent) for percent in (50, 90, 99)},
            "max": max(self.lengths, default=0),
            "over": self.over,
            "lost": [first_difference(text, found) for text, found in self.lost],
            "longest": [{"tokens": tokens, "text": text} for tokens, text in self.longest],
        }


def first_difference(text: str, found: str) -> dict[str, Any]:
    """Where two texts differ first, with a few characters of both around it."""
    at = next((i for i, (a, b) in enumerate(zip(text, found, strict=False)) if a != b), min(len(text), len(found)))
    near = slice(max(0, at - 12), at + 12)
    return {"text": text, "at": at, "expected": text[near], "found": found[near]}


def tally(tokenizer: Tokenizer, texts: Sequence[str], prompt: str, limit: int, examples: int) -> Tally:
    """Counts of texts to which the prompt is prepended."""
    # The prompt's last space belongs to the first word of the text.
    added = len(tokenizer.encode_batch([prompt.rstrip()])[0])
    seen = [prompt + text for text in texts]
    ids = tokenizer.encode_batch(seen)
    decoded = tokenizer.decode_batch(ids)
    made = Tally()
    for text, whole, row, back in zip(texts, seen, ids, decoded, strict=True):
        unknown = row.count(UNK)
        made.characters += len(text)
        made.tokens += len(row) - added
        made.unknown += unknown
        made.with_unknown += unknown > 0
        made.over += len(row) > limit
        made.lengths[len(row)] += 1
        if back != whole:
            made.not_exact += 1
            if len(made.lost) < examples:
                made.lost.append((whole, back))
    longest = heapq.nlargest(examples, range(len(texts)), key=lambda i: len(ids[i]))
    made.longest = [(len(ids[i]), seen[i]) for i in longest]
    return made
