"""Shards and their index: the folder that `bigchem data build` publishes and everything else reads.

    DATA/index.json                       fingerprint, tasks, shards; published last
    DATA/tokenizer/                       loadable by transformers
    DATA/train/captioning-00000.arrow     rows: key, source, target, source_ids, target_ids
    DATA/train/captioning.lengths.npy     [rows, 2] int32: source and target tokens

Shards are Arrow streams as `datasets` writes them, so `datasets.load_dataset("arrow", data_files=...)` reads them as
they are; here they are memory-mapped, and a row costs two slices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bigchem.errors import UserError
from bigchem.tasks import TRAINABLE, TRAINABLE_NAMES

FORMAT = 1
SPLITS = ("train", "valid", "test")
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Shard:
    """One file of rows of one task. path: relative to the data folder."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What index.json holds.

    tokenizer: its fingerprint. shards: by split and task. report: counts of the build (rejected, leaked, ...).
    recipe: hash of the build's configuration and inputs, by which a rebuild knows that nothing changed.
    """

    tokenizer: str
    shards: dict[str, dict[str, list[Shard]]]
    recipe: str = ""
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identity of the data: 16 hexadecimal digits over the tokenizer and every shard's hash, in order."""
        digest = hashlib.sha256(self.tokenizer.encode())
        for split in SPLITS:
            for task in TRAINABLE_NAMES:
                for shard in self.shards.get(split, {}).get(task, []):
                    digest.update(f"{split}/{task}/{shard.rows}/{shard.sha256}\n".encode())
        return digest.hexdigest()[:16]

    def rows(self, split: str) -> dict[str, int]:
        """Rows of each task that has any in this split."""
        return {task: sum(s.rows for s in shards) for task, shards in self.shards.get(split, {}).items()}

    def to_json(self) -> str:
        """The text of index.json."""
        return json.dumps({"format": FORMAT, "fingerprint": self.fingerprint, **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str, where: str) -> Index:
        """Reads index.json; UserError if it is not one, or if its fingerprint does not match its contents."""
        try:
            table = json.loads(text)
            if table["format"] != FORMAT:
                raise UserError(f"index format {table['format']}, expected {FORMAT}", where, "build the data again")
            shards = {
                split: {task: [Shard(**s) for s in listed] for task, listed in tasks.items()}
                for split, tasks in table["shards"].items()
            }
            index = Index(table["tokenizer"], shards, table["recipe"], table["report"])
            stated = table["fingerprint"]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not an index: {error!r}", where, "build the data again") from None
        if index.fingerprint != stated:
            raise UserError("the fingerprint does not match the contents", where, "build the data again")
        return index


class Data:
    """A published data folder, opened."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / "index.json"
        if not file.is_file():
            raise UserError(
                "no data here: index.json is missing", str(self.path), "bigchem data build RECIPE.toml " + str(path)
            )
        self.index = Index.from_json(file.read_text(encoding="utf-8"), str(file))

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer's folder."""
        return self.path / "tokenizer"

    def split(self, split: str, task: str) -> TaskRows:
        """The rows of one task in one split; UserError if there are none."""
        if task not in self.index.shards.get(split, {}):
            have = ", ".join(f"{s}: {' '.join(t) or '-'}" for s, t in self.index.shards.items())
            raise UserError(f"no rows for task '{task}' in split '{split}'", str(self.path), f"there is {have}")
        return TaskRows(self.path, split, task, self.index.shards[split][task])


class TaskRows:
    """The rows of one task in one split, memory-mapped, in file order."""

    def __init__(self, root: Path, split: str, task: str, shards: Sequence[Shard]) -> None:
        self._root = root
        self.split, self.task, self.shards = split, task, shards
        self._ends = np.cumsum([s.rows for s in shards])
        self._columns: dict[int, _Columns] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def lengths(self) -> Int32Array:
        """[rows, 2] source and target tokens, end tokens included."""
        file = self._root / self.split / f"{self.task}.lengths.npy"
        try:
            lengths: Int32Array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read lengths: {error}", str(file), "build the data again") from None
        if lengths.shape != (len(self), 2):
            raise UserError(f"{lengths.shape[0]} lengths for {len(self)} rows", str(file), "build the data again")
        return lengths

    def tokens(self, row: int) -> tuple[Int32Array, Int32Array]:
        """Source and target token ids of a row, end tokens included."""
        columns, i = self._locate(row)
        return columns.source_ids[i], columns.target_ids[i]

    def text(self, row: int) -> tuple[str, str, str]:
        """Key, source without its prompt, and target of a row."""
        columns, i = self._locate(row)
        table = columns.table
        return table["key"][i].as_py(), table["source"][i].as_py(), table["target"][i].as_py()

    def _locate(self, row: int) -> tuple[_Columns, int]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        if number not in self._columns:
            self._columns[number] = _Columns(self._root / self.shards[number].path, self.shards[number].rows)
        start = int(self._ends[number - 1]) if number else 0
        return self._columns[number], row - start


class _Ragged:
    """A list column as offsets and values: `ragged[i]` is a view, not a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks()
        chunk = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        self._offsets = chunk.offsets.to_numpy()
        self._values = chunk.values.to_numpy()

    def __getitem__(self, i: int) -> Int32Array:
        values: Int32Array = self._values[self._offsets[i] : self._offsets[i + 1]]
        return values


class _Columns:
    """One shard, memory-mapped."""

    def __init__(self, path: Path, rows: int) -> None:
        try:
            with pa.memory_map(str(path)) as source:
                self.table = pa.ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(
                f"cannot read shard of {rows} rows: {error}", str(path), "copy it again or rebuild the data"
            ) from None
        if self.table.num_rows != rows:
            raise UserError(f"{self.table.num_rows} rows, the index says {rows}", str(path), "rebuild the data")
        self.source_ids = _Ragged(self.table["source_ids"])
        self.target_ids = _Ragged(self.table["target_ids"])


class ShardWriter:
    """Writes the rows of one task in one split as shards of at most `shard_rows` rows, and their lengths."""

    def __init__(self, root: Path, split: str, task: str, shard_rows: int) -> None:
        self._root, self._split, self._task, self._shard_rows = root, split, task, shard_rows
        self._pending: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._lengths: list[tuple[int, int]] = []
        self.shards: list[Shard] = []

    def add(self, key: str, source: str, target: str, source_ids: list[int], target_ids: list[int]) -> None:
        """Appends a row."""
        for name, value in zip(_COLUMNS, (key, source, target, source_ids, target_ids), strict=True):
            self._pending[name].append(value)
        self._lengths.append((len(source_ids), len(target_ids)))
        if len(self._pending["key"]) == self._shard_rows:
            self._flush()

    def close(self) -> list[Shard]:
        """Writes what is left and the lengths; the shards in order."""
        if self._pending["key"]:
            self._flush()
        np.save(self._root / self._split / f"{self._task}.lengths.npy", np.array(self._lengths, dtype=np.int32))
        return self.shards

    def _flush(self) -> None:
        from datasets import Features, List, Value
        from datasets.arrow_writer import ArrowWriter

        features = Features(
            {name: Value("string") for name in _COLUMNS[:3]} | dict.fromkeys(_COLUMNS[3:], List(Value("int32")))
        )
        relative = Path(self._split) / f"{self._task}-{len(self.shards):05d}.arrow"
        path = self._root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(self._pending, schema=features.arrow_schema)
        with ArrowWriter(path=str(path), features=features, writer_batch_size=self._shard_rows) as writer:
            writer.write_table(table)
            writer.finalize()
        content = path.read_bytes()
        self.shards.append(Shard(str(relative), table.num_rows, len(content), hashlib.sha256(content).hexdigest()))
        self._pending = {name: [] for name in _COLUMNS}


_COLUMNS = ("key", "source", "target", "source_ids", "target_ids")


def prompted(task: str, source: str) -> str:
    """The text that the encoder sees: the task's prompt, then the source."""
    return TRAINABLE[task].prompt + source
