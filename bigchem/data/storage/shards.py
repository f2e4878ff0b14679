"""Reading a local or remote data folder: its tokenizer, its lengths, and any of its rows by number.

index.py lists the files, columns.py describes their content. Remote files come through a bounded local cache
(cache.py). Every open file is memory-mapped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bigchem.base.errors import UserError
from bigchem.data.ragged import IntArray
from bigchem.data.storage import remote
from bigchem.data.storage.cache import Cache
from bigchem.data.storage.columns import Columns, DamagedError, Int32Array, Lengths, read_lengths
from bigchem.data.storage.files import COPY, Cached, Files, Local
from bigchem.data.storage.index import Index, Shard, all_leaked, lengths_path
from bigchem.tasks import Tasks

OPEN_REMOTE = 16
"""Default of Data's open_remote. An evicted file occupies its space until it is unmapped."""


class Data:
    """Published data, opened.

    path: a folder, or the URL of one (s3://, https://, hf://, memory://, ... of fsspec). check: check every file's
    sha256 when it is first opened, not only its size. cache: where a URL's files are fetched to, always checked;
    default: `Cache()`. open_remote: shards of each remote task that stay mapped.
    """

    def __init__(
        self, path: str | Path, *, check: bool = False, cache: Cache | None = None, open_remote: int = OPEN_REMOTE
    ) -> None:
        self._open_remote = open_remote
        self._files: Local | Cached
        if remote.is_url(path):
            self.path: str | Path = str(path)
            self._files = Cached(str(path), cache or Cache())
        else:
            self.path = Path(path)
            self._files = Local(self.path, check=check)
        self.index = self._files.index()

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer's folder, always a local one."""
        return self._files.folder("tokenizer", self.index.under("tokenizer"))

    @property
    def tasks(self) -> Tasks:
        """The tasks that the folder holds rows of, and span corruption."""
        return self.index.known

    def split(self, split: str, task: str) -> TaskRows:
        """The rows of one task in one split; UserError if there are none."""
        if task not in self.index.shards.get(split, {}):
            have = ", ".join(f"{s}: {' '.join(t) or '-'}" for s, t in self.index.shards.items())
            leaks = self.index.report.get("leaked", {}).get(task) if split == "train" else None
            why = f": {all_leaked(task, leaks)}" if leaks else ""
            raise UserError(f"no rows for task '{task}' in split '{split}'{why}", str(self.path), f"available: {have}")
        return TaskRows(self._files, self.index, split, task, self._open_remote)


class Gathered(NamedTuple):
    """Token ids of B rows, concatenated: source_ids [Ts], target_ids [Tt] int32; their lengths [B] int64."""

    source_ids: Int32Array
    source_lens: IntArray
    target_ids: Int32Array
    target_lens: IntArray


class TaskRows:
    """The rows of one task in one split, memory-mapped, in file order. Any number of threads may read.

    about: the task. A shard holds each row once per prompt, one after the other; rows are numbered without that.
    """

    def __init__(self, files: Files, index: Index, split: str, task: str, open_remote: int = OPEN_REMOTE) -> None:
        self._files, self._index = files, index
        self.split, self.task = split, task
        self.about = index.known[task]
        self.shards: Sequence[Shard] = index.shards[split][task]
        self._prompts = len(self.about.prompts)
        self._ends: IntArray = np.cumsum([s.rows for s in self.shards])
        self._max_open = len(self.shards) if isinstance(files, Local) else open_remote
        self._open: OrderedDict[int, Columns] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) // self._prompts

    @property
    def shard_rows(self) -> IntArray:
        """[shards] rows of each shard, in order."""
        return np.array([s.rows // self._prompts for s in self.shards], dtype=np.int64)

    @cached_property
    def lengths(self) -> Lengths:
        """[rows, 2] tokens of the source with its first prompt, and of the target; see `prompt_lengths`."""
        return self.prompt_lengths[:, 0]

    @cached_property
    def prompt_lengths(self) -> Lengths:
        """[rows, prompts, 2] source and target tokens, end tokens included: uint16, or uint32 if one does not fit."""
        name = lengths_path(self.split, self.task)
        try:
            return read_lengths(self._files.buffer(name, self._index.files[name]), int(self._ends[-1])).reshape(
                -1, self._prompts, 2
            )
        except DamagedError as error:
            raise UserError(str(error), f"{self._files.where}/{name}", COPY) from None

    def gather(self, rows: IntArray, prompts: IntArray | None = None) -> Gathered:
        """Token ids of rows [B], in the given order; rows may repeat. prompts [B]: which prompt of each; None: the
        first. IndexError if a row is out of range."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        prompts = np.zeros_like(rows) if prompts is None else prompts
        lens = self.prompt_lengths[rows, prompts].astype(np.int64)
        rows = rows * self._prompts + prompts
        at = np.cumsum(lens, axis=0) - lens
        source, target = (np.empty(total, dtype=np.int32) for total in lens.sum(axis=0))
        numbers = np.searchsorted(self._ends, rows, side="right")
        by_shard = np.argsort(numbers, kind="stable")
        found, firsts = np.unique(numbers[by_shard], return_index=True)
        for number, chosen in zip(found.tolist(), np.split(by_shard, firsts[1:]), strict=False):
            columns, first = self._columns(number), self._first(number)
            local = rows[chosen] - first
            columns.source_ids.gather(local, lens[chosen, 0], source, at[chosen, 0])
            columns.target_ids.gather(local, lens[chosen, 1], target, at[chosen, 1])
        return Gathered(source, lens[:, 0], target, lens[:, 1])

    def tokens(self, row: int) -> tuple[Int32Array, Int32Array]:
        """Source and target token ids of a row, end tokens included."""
        columns, i = self._locate(row)
        return columns.source_ids[i], columns.target_ids[i]

    def text(self, row: int) -> tuple[str, str, str]:
        """Key, source without its prompt, and target of a row."""
        columns, i = self._locate(row)
        table = columns.table
        return table["key"][i].as_py(), table["source"][i].as_py(), table["target"][i].as_py()

    def _first(self, number: int) -> int:
        return int(self._ends[number] - self.shards[number].rows)

    def _locate(self, row: int) -> tuple[Columns, int]:
        row *= self._prompts
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._columns(number), row - self._first(number)

    def _columns(self, number: int) -> Columns:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        # Outside the lock, since it may download. At worst two threads map the same shard twice.
        opened = self._map(number)
        with self._lock:
            self._open[number] = opened
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
        return opened

    def _map(self, number: int) -> Columns:
        shard, first = self.shards[number], self._first(number)
        lengths = self.prompt_lengths.reshape(-1, 2)[first : first + shard.rows]
        lost = lost_rows(first, shard.rows, f"{self.split}/{self.task}")
        try:
            columns = Columns(self._files.buffer(shard.path, shard.file), shard.rows)
            if not np.array_equal(columns.lengths, lengths):
                raise DamagedError(f"disagrees with the token counts in {lengths_path(self.split, self.task)}")
        except UserError as error:
            raise type(error)(f"{error.what}: {lost}", error.where, error.hint) from None
        except DamagedError as error:
            raise UserError(f"{error}: {lost}", f"{self._files.where}/{shard.path}", COPY) from None
        return columns


def lost_rows(first: int, rows: int, of: str) -> str:
    """The message about the rows lost by a damaged file, numbered from 0 within their task."""
    return f"rows {first:,} to {first + rows - 1:,} of {of} lost"
