"""Texts that do not come back from the tokenizer: counted while shards are written, and a limit that stops a build."""

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
"""Texts that are shown of each side."""


@dataclass
class Lossy:
    """Of the texts of one side: how many there are, do not come back as they were, have an unknown token; the first
    that do not, as first_difference says it."""

    texts: int = 0
    lost: int = 0
    unknown: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Lossy) -> None:
        """Counts what another has counted of texts that come after ours."""
        self.texts += other.texts
        self.lost += other.lost
        self.unknown += other.unknown
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    @property
    def share(self) -> float:
        """Of the texts, how many do not come back."""
        return self.lost / max(1, self.texts)


def count_lossy(tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[Sequence[int]], prompt: str = "") -> Lossy:
    """What comes back of texts from their ids, in which a prompt stands before each: it does not count itself."""
    # The prompt's last space belongs to the first word of the text.
    before = tokenizer.encode_batch([prompt.rstrip()])[0][:-1] if prompt else []
    said = f"{tokenizer.decode_batch([before])[0]} " if prompt else ""
    back = [found.removeprefix(said) for found in tokenizer.decode_batch(ids)]
    lost = [n for n, (text, found) in enumerate(zip(texts, back, strict=True)) if text != found]
    examples = [first_difference(texts[n], back[n]) for n in lost[:EXAMPLES]]
    for example in examples:
        del example["text"]  # which may be long
    return Lossy(len(texts), len(lost), sum(UNK in row[len(before) :] for row in ids), examples)


def sum_lossy(found: Iterable[tuple[str, dict[str, dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """By task and side ("captioning target"), from (task, by side) of every shard: what the build reports."""
    sides: dict[str, Lossy] = {}
    for task, by_side in found:
        for side, counts in by_side.items():
            sides.setdefault(f"{task} {side}", Lossy()).add(Lossy(**counts))
    return {name: asdict(lossy) for name, lossy in sides.items()}


def check_lossy(report: dict[str, dict[str, Any]], limit: float) -> None:
    """UserError, with the worst side and three of its texts, where a larger share of a side's texts is lost."""
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
    hint = f"mend the texts, use T5's vocabulary (tokenizer.t5), or allow more: max_lossy = {allowed} goes on from here"
    raise UserError(what, "max_lossy", hint)


def shown(example: dict[str, Any]) -> str:
    """A lost text in a few words."""
    return f"{example['expected']!r} became {example['found']!r}"


def lossy_table(report: dict[str, dict[str, Any]]) -> Table:
    """The sides that lose something, with three texts of each."""
    table = Table(title="texts that do not come back from the tokenizer", title_justify="left")
    table.add_column("task and side")
    for name in ("texts", "lost", "with unknown characters"):
        table.add_column(name, justify="right")
    table.add_column("the first")
    for name, counts in report.items():
        if counts["lost"]:
            numbers = (f"{counts[key]:,}" for key in ("texts", "lost", "unknown"))
            table.add_row(name, *numbers, "\n".join(markup(shown(one)) for one in counts["examples"]))
    return table
