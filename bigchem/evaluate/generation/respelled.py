"""A data folder with its source molecules respelled, behind the same interface."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bigchem.chemistry.spellings import respell
from bigchem.data.storage.columns import Int32Array, Lengths
from bigchem.data.storage.shards import Data, TaskRows
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.tasks import Tasks


@dataclass(frozen=True)
class RespelledIndex:
    """fingerprint: the data's plus the spelling. tokenizer: as in Index."""

    fingerprint: str
    tokenizer: str


class RespelledRows:
    """The first `count` rows of a task, with TaskRows' interface and respelled sources.

    changed: rows whose source text differs. unread: rows whose source RDKit cannot parse, left unchanged.
    """

    def __init__(self, rows: TaskRows, tokenizer: Tokenizer, spelling: str, seed: int, count: int) -> None:
        self.task, self.about, self._rows = rows.task, rows.about, rows
        originals = [rows.text(row)[1] for row in range(count)]
        found = [respell(source, spelling, seed) for source in originals]
        self._sources = [old if new is None else new for old, new in zip(originals, found, strict=True)]
        self._ids = tokenizer.encode_batch([rows.about.prompted(text) for text in self._sources])
        self.unread = found.count(None)
        self.changed = sum(new != old for new, old in zip(self._sources, originals, strict=True))

    def __len__(self) -> int:
        return len(self._sources)

    @cached_property
    def lengths(self) -> Lengths:
        """[rows, 2] source and target tokens, end tokens included."""
        lengths = self._rows.lengths[: len(self)].astype(np.uint32)
        lengths[:, 0] = [len(ids) for ids in self._ids]
        return lengths

    def tokens(self, row: int) -> tuple[Int32Array, Int32Array]:
        """Source and target token ids of a row, end tokens included."""
        return np.array(self._ids[row], dtype=np.int32), self._rows.tokens(row)[1]

    def text(self, row: int) -> tuple[str, str, str]:
        """Key, respelled source without its prompt, and target of a row."""
        key, _, target = self._rows.text(row)
        return key, self._sources[row], target


class Respelled:
    """Data whose rows, up to max_rows per task (0: all), are respelled by one of spellings.SPELLINGS."""

    def __init__(self, data: Data, spelling: str, seed: int, max_rows: int) -> None:
        self._data, self._spelling, self._seed, self._max_rows = data, spelling, seed, max_rows
        self.path: str | Path = data.path
        name = f"{data.index.fingerprint}/{spelling}" + (f"/{seed}" if spelling == "random" else "")
        self.index = RespelledIndex(name, data.index.tokenizer)
        self._made: dict[tuple[str, str], RespelledRows] = {}

    @property
    def tasks(self) -> Tasks:
        """Those of the data."""
        return self._data.tasks

    def split(self, split: str, task: str) -> RespelledRows:
        """The rows of one task in one split; UserError if there are none."""
        if (split, task) not in self._made:
            rows = self._data.split(split, task)
            count = min(len(rows), self._max_rows or len(rows))
            tokenizer = Tokenizer.load(self._data.tokenizer_dir)
            self._made[split, task] = RespelledRows(rows, tokenizer, self._spelling, self._seed, count)
        return self._made[split, task]
