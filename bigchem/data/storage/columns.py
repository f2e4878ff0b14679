"""Writing and mapping shards and the lengths of a task's rows.

A shard is one record batch in an Arrow stream. `datasets.load_dataset("arrow", data_files=...)` reads it directly, and
here a row is two slices of memory-mapped arrays.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bigchem.base.atomic import write_atomically
from bigchem.data.ragged import IntArray, row_ranges
from bigchem.data.storage.index import Shard, lengths_path

Int32Array = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.unsignedinteger]

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "source", "target")]
    + [(name, pa.list_(pa.int32())) for name in ("source_ids", "target_ids")]
)


class DamagedError(Exception):
    """The content does not fit the kind of file."""


def write_shard(root: Path, path: str, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Writes rows as one file, atomically; equal rows give equal bytes.

    path: relative to root, see index.shard_path. columns: key, source, target (texts), source_ids, target_ids (lists
    of token ids, end tokens included), equally long. The rows are in memory twice during the write.
    """
    table = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table.combine_chunks())
    content = sink.getvalue()
    write_atomically(root / path, memoryview(content))
    return Shard(path, table.num_rows, content.size, hashlib.sha256(content).hexdigest())


def write_lengths(root: Path, split: str, task: str, lengths: npt.ArrayLike) -> None:
    """Writes source and target tokens of all rows of a task in a split, [rows, 2], in 2 bytes each if they fit."""
    array = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
    fits = array.max(initial=0) <= np.iinfo(np.uint16).max
    file = io.BytesIO()
    np.save(file, array.astype(np.uint16 if fits else np.uint32))
    write_atomically(root / lengths_path(split, task), file.getbuffer())


def read_lengths(content: pa.Buffer, rows: int) -> Lengths:
    """[rows, 2] uint16 or uint32, a view of the content; DamagedError if it is anything else."""
    header = io.BytesIO(memoryview(content)[:1024])
    try:
        np.lib.format.read_magic(header)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
        if shape != (rows, 2) or fortran or dtype not in (np.uint16, np.uint32):
            raise DamagedError(f"{shape} {dtype} lengths for {rows:,} rows")
        lengths: Lengths = np.frombuffer(content, dtype, 2 * rows, header.tell()).reshape(rows, 2)
    except DamagedError:
        raise
    except Exception as error:  # numpy's header parser raises several kinds
        raise DamagedError(f"no lengths: {str(error)[:200]}") from None
    return lengths


class Ragged:
    """A list column as offsets and values: `ragged[i]` is a view, not a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        # Not to_numpy, which imports pandas.
        self.offsets: Int32Array = np.from_dlpack(array.offsets).astype(np.int32, copy=False)
        self.values: Int32Array = np.from_dlpack(array.values).astype(np.int32, copy=False)
        if (np.diff(self.offsets) < 0).any() or self.offsets[0] < 0 or self.offsets[-1] > len(self.values):
            raise ValueError("offsets of token ids out of order")

    def __getitem__(self, i: int) -> Int32Array:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def gather(self, rows: IntArray, lengths: IntArray, out: Int32Array, at: IntArray) -> None:
        """Copies rows [B] of the given lengths [B] to the places in `out` that start at `at` [B]."""
        out[row_ranges(at, lengths)] = self.values[row_ranges(self.offsets[rows].astype(np.int64), lengths)]


class Columns:
    """One shard, mapped. table: the texts. lengths: [rows, 2] int64, counted from the token ids."""

    def __init__(self, content: pa.Buffer, rows: int) -> None:
        """DamagedError if the content is not a shard with this number of rows."""
        try:
            self.table = pa.ipc.open_stream(content).read_all()
            self.table.validate()
            if self.table.schema != SCHEMA or self.table.num_rows != rows:
                raise DamagedError(f"{self.table.num_rows:,} rows of {self.table.schema.names}, not {rows:,} of ours")
            self.source_ids, self.target_ids = Ragged(self.table["source_ids"]), Ragged(self.table["target_ids"])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedError(f"altered, not a shard: {error}") from None

    @property
    def lengths(self) -> IntArray:
        """[rows, 2] source and target tokens, counted."""
        both = [np.diff(ragged.offsets) for ragged in (self.source_ids, self.target_ids)]
        return np.stack(both, axis=1).astype(np.int64)
