"""Texts that do not round-trip through the tokenizer: counts, and the limit that stops a build."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.data.text.tally import first_difference
from bigchem.data.text.tokenizer import UNK, Tokenizer

EXAMPLES = 3
"""Texts shown for each side."""


@dataclass
class Lossy:
    """Counts of one side's texts. lost: those that do not round-trip. unknown: those with an unknown token. examples:
    the first lost ones, from first_difference."""

    texts: int = 0
    lost: int = 0
    unknown: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Lossy) -> None:
        """Adds the counts of later texts."""
        self.texts += other.texts
        self.lost += other.lost
        self.unknown += other.unknown
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    @property
    def share(self) -> float:
        """Share of texts that do not round-trip."""
        return self.lost / max(1, self.texts)


def count_lossy(tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[Sequence[int]], prompt: str = "") -> Lossy:
    """Compares texts with their decoded ids. The ids include the prompt, which is not counted."""
    # The prompt's last space belongs to the first word of the text.
    before = tokenizer.encode_batch([prompt.rstrip()])[0][:-1] if prompt else []
    prefix = f"{tokenizer.decode_batch([before])[0]} " if prompt else ""
    back = [found.removeprefix(prefix) for found in tokenizer.decode_batch(ids)]
    lost = [n for n, (text, found) in enumerate(zip(texts, back, strict=True)) if text != found]
    examples = [first_difference(texts[n], back[n]) for n in lost[:EXAMPLES]]
    for example in examples:
        del example["text"]  # may be long
    return Lossy(len(texts), len(lost), sum(UNK in row[len(before) :] for row in ids), examples)


def sum_lossy(found: Iterable[tuple[str, dict[str, dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """The report by task and side ("captioning target"), from every shard's (task, counts by side)."""
    sides: dict[str, Lossy] = {}
    for task, by_side in found:
        for side, counts in by_side.items():
            sides.setdefault(f"{task} {side}", Lossy()).add(Lossy(**counts))
    return {name: asdict(lossy) for name, lossy in sides.items()}


def check_lossy(report: dict[str, dict[str, Any]], limit: float) -> None:
    """UserError, with the worst side and three of its texts, if a larger share of a side's texts is lost."""
    sides = {name: Lossy(**counts) for name, counts in report.items()}
    over = sorted((name for name in sides if sides[name].share > limit), key=lambda name: -sides[name].share)
    if not over:
        return
    worst = sides[over[0]]
    more = f"; so have {', '.join(over[1:])}" if over[1:] else ""
    what = (
        f"{over[0]}: {worst.lost:,} of {worst.texts:,} texts ({worst.share:.1%}) do not come back from the tokenizer, "
        f"{worst.unknown:,} with unknown characters: {'; '.join(map(shown, worst.examples))}{more}"
    )
    allowed = math.ceil(100 * worst.share) / 100
    hint = f"fix the texts, use T5's vocabulary (tokenizer.t5), or allow more: max_lossy = {allowed} resumes from here"
    raise UserError(what, "max_lossy", hint)


def shown(example: dict[str, Any]) -> str:
    """A lost text in short."""
    return f"{example['expected']!r} became {example['found']!r}"


def lossy_table(report: dict[str, dict[str, Any]]) -> Table:
    """The sides that lose texts, with three of each."""
    table = Table(title="texts that do not come back from the tokenizer", title_justify="left")
    table.add_column("task and side")
    for name in ("texts", "lost", "with unknown characters"):
        table.add_column(name, justify="right")
    table.add_column("the first")
    for name, counts in report.items():
        if counts["lost"]:
            numbers = (f"{counts[key]:,}" for key in ("texts", "lost", "unknown"))
            table.add_row(name, *numbers, "\n".join(markup(shown(example)) for example in counts["examples"]))
    return table
