"""The file of a chunk: its rows with their hashes, and the facts about its records; how it is written and read."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bigchem.base.atomic import replace_atomically
from bigchem.data.build.leakage import Identities, hash64
from bigchem.data.sources.base import Row
from bigchem.data.storage.index import SPLITS
from bigchem.tasks import Tasks

_SCHEMA = pa.schema(
    [
        ("split", pa.int8()),
        ("task", pa.int32()),
        ("key", pa.uint64()),
        ("question", pa.uint64()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("fields", pa.map_(pa.string(), pa.string())),
        ("exact", pa.list_(pa.uint64())),
        ("skeleton", pa.list_(pa.uint64())),
    ]
)


@dataclass(frozen=True)
class Rejected:
    """A record that yields no row, and why."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """The facts about a chunk file besides its rows. splits: rows by split. split_names: rows by the name of their
    split in the file, where it is another. repairs: rows by repair of their texts. without_inchi: rows with a molecule
    that has no InChI. left_out: records that the source excludes. seconds: of work, by phase; empty if the chunk
    already existed."""

    path: Path
    records: int
    rows: int
    splits: Counter[str]
    split_names: Counter[str]
    repairs: Counter[str]
    without_inchi: int
    left_out: int
    rejected: list[Rejected]
    seconds: dict[str, float]


def chunk_path(folder: Path, source: int, number: int) -> Path:
    """The file of a source's chunk."""
    return folder / f"{source:03d}-{number:06d}.arrow"


def write_chunk(
    path: Path, rows: list[Row], splits: list[str], tasks: Tasks, identities: Identities, facts: dict[str, Any]
) -> None:
    """Writes a chunk's file, completely or not at all. splits: of the rows, one each. facts: about its records."""
    offsets = np.searchsorted(identities.row, np.arange(len(rows) + 1))
    columns = [
        pa.array([SPLITS.index(split) for split in splits], pa.int8()),
        pa.array([tasks[row.task].id for row in rows], pa.int32()),
        pa.array([int(row.key, 16) for row in rows], pa.uint64()),
        pa.array([hash64(_question(row)) for row in rows], pa.uint64()),
        pa.array([row.source for row in rows], pa.string()),
        pa.array([row.target for row in rows], pa.string()),
        pa.array([row.fields for row in rows], pa.map_(pa.string(), pa.string())),
        *(
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(hashes, pa.uint64()))
            for hashes in (identities.exact, identities.skeleton)
        ),
    ]
    table = pa.table(columns, schema=_SCHEMA.with_metadata({"facts": json.dumps(facts)}))
    with replace_atomically(path) as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _question(row: Row) -> str:
    """What the model is asked, in any spelling: equal for rows that leak into each other."""
    return "\x1f".join((row.task, row.question or row.source, *(part for field in row.fields for part in field)))


def read_chunk(path: Path, seconds: dict[str, float]) -> Chunk:
    """The facts in a chunk's file. seconds: see Chunk."""
    table = _open(path)
    facts = json.loads(table.schema.metadata[b"facts"])
    rejected = [Rejected(**found) for found in facts["rejected"]]
    splits, names, repairs = (Counter[str](facts[name]) for name in ("splits", "split_names", "repairs"))
    noted = (splits, names, repairs, facts["without_inchi"], facts["left_out"])
    return Chunk(path, facts["records"], table.num_rows, *noted, rejected, seconds)


def _open(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


class ParsedRows:
    """The rows of many chunk files: hashes in memory, texts in the files."""

    def __init__(self, chunks: list[Chunk], tasks: Tasks) -> None:
        self._chunks, self._tasks = chunks, tasks
        self.task: npt.NDArray[np.int32] = _column(chunks, "task", np.int32)
        self.key: npt.NDArray[np.uint64] = _column(chunks, "key", np.uint64)
        self.question: npt.NDArray[np.uint64] = _column(chunks, "question", np.uint64)
        self.split: npt.NDArray[np.int8] = _column(chunks, "split", np.int8)
        self._ends = np.cumsum(np.array([chunk.rows for chunk in chunks], dtype=np.int64))

    def select(self, split: str, task: str) -> npt.NDArray[np.int64]:
        """Rows of a split and task, in order, without duplicates of earlier ones."""
        chosen = self._all(split, task)
        _, first = np.unique(self.key[chosen], return_index=True)
        return chosen[np.sort(first)]

    def same_source(self, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of the rows has the task and the source of one of the others."""
        return np.isin(self.question[rows], self.question[others])

    def count(self, split: str, task: str) -> int:
        """Number of rows of a split and task, duplicates included."""
        return len(self._all(split, task))

    def identities(self, rows: npt.NDArray[np.int64]) -> Identities:
        """Identities of the chosen rows (ascending), numbered from 0."""
        lens, exact, skeleton = [], [], []
        for path, inside in self.places(rows):
            table = _open(path).select(["exact", "skeleton"]).take(inside)
            lens.append(table["exact"].combine_chunks().value_lengths().to_numpy())
            exact.append(_flat(table, "exact"))
            skeleton.append(_flat(table, "skeleton"))
        row = np.repeat(np.arange(len(rows)), np.concatenate([*lens, np.zeros(0, dtype=np.int64)]))
        nothing = np.zeros(0, dtype=np.uint64)
        return Identities(len(rows), row, np.concatenate([*exact, nothing]), np.concatenate([*skeleton, nothing]))

    def places(self, rows: npt.NDArray[np.int64]) -> list[tuple[Path, npt.NDArray[np.int64]]]:
        """(chunk file, row numbers inside it) of `rows` (ascending)."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        used, first = np.unique(numbers, return_index=True)
        parts = np.split(rows, first[1:])
        starts = [int(self._ends[n]) - self._chunks[n].rows for n in used]
        return [(self._chunks[n].path, part - start) for n, part, start in zip(used, parts, starts, strict=True)]

    def _all(self, split: str, task: str) -> npt.NDArray[np.int64]:
        return np.flatnonzero((self.split == SPLITS.index(split)) & (self.task == self._tasks[task].id))


def texts(places: list[tuple[Path, npt.NDArray[np.int64]]]) -> Iterator[pa.Table]:
    """Tables with the columns key, source, target, fields of the rows at some places; see ParsedRows.places."""
    for path, inside in places:
        yield _open(path).select(["key", "source", "target", "fields"]).take(inside)


def _column(chunks: list[Chunk], name: str, dtype: type[np.generic]) -> Any:
    column = np.empty(sum(chunk.rows for chunk in chunks), dtype=dtype)
    start = 0
    for chunk in chunks:  # copied: a process may have at most 65,530 mappings (vm.max_map_count)
        column[start : start + chunk.rows] = _open(chunk.path)[name].to_numpy()
        start += chunk.rows
    return column


def _flat(table: pa.Table, name: str) -> npt.NDArray[np.uint64]:
    values: npt.NDArray[np.uint64] = table[name].combine_chunks().flatten().to_numpy()
    return values
