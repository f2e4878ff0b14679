"""How DeepSpeed writes and reads its files here: hashed and fsynced while they are written, loaded without unpickling.

A rank that cannot write remembers why and goes on, so that it meets the others at DeepSpeed's barriers; all ranks look
at the errors together afterwards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch.serialization import get_crc32_options, set_crc32_options

from bigchem.train.zero_files import load_safely

CHUNK = 16 << 20
"""Bytes after which the kernel is asked to write to the disk, which it does while they are hashed."""


class Files(CheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's checkpoint engine for one rank.

    masters_apart: names of parameters whose fp32 weights are among the optimizer's states: a model file leaves them
    out, as they would be written twice. written: {path: (bytes, sha256)} since `begin`. error: why a write failed.
    """

    def __init__(self, masters_apart: Collection[str]) -> None:
        super().__init__()
        self._apart = frozenset(masters_apart)
        self.begin()

    def begin(self) -> None:
        """Forgets what was written before."""
        self.written: dict[Path, tuple[int, str]] = {}
        self.error: Exception | None = None

    @property
    def ours(self) -> bool:
        """Whether the error is one that no disk makes."""
        return self.error is not None and not isinstance(self.error, OSError)

    def create(self, info: Any) -> None:
        """Nothing to prepare."""

    def commit(self, info: Any) -> bool:
        """Nothing to finish: bigchem publishes."""
        return True

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a folder; an error is remembered."""
        try:
            Path(path).mkdir(parents=True, exist_ok=exist_ok)
        except OSError as error:
            self.error = self.error or error

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        """Writes a file, hashes it and fsyncs it; an error is remembered, and no more is written."""
        if self.error is not None:
            return
        if self._apart and "module" in state_dict:
            kept = {name: value for name, value in state_dict["module"].items() if name not in self._apart}
            state_dict = {**state_dict, "module": kept}
        try:
            with HashedFile(Path(path)) as file, _without_crc32():
                torch.save(state_dict, file)  # type: ignore[arg-type]  # needs no more than write and flush
            self.written[Path(path)] = (file.size, file.sha256)
        except Exception as error:
            self.error = error

    def load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        """A file's content, mapped, on the CPU."""
        return load_safely(Path(path))


class HashedFile:
    """A file to write to once, from beginning to end. When the block ends it is on the disk, with its size and sha256.

    write never raises, for torch's writer does not survive that well: the first error comes when the block ends.
    """

    def __init__(self, path: Path) -> None:
        self.size, self.sha256 = 0, ""
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._error: OSError | None = None

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None:
        self._pool.shutdown()
        with self._file:
            if self._error is not None:
                raise self._error
            if kind is None:
                os.fsync(self._file.fileno())
        self.sha256 = self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Writes all of `data`, and hashes it meanwhile in a thread (hashlib lets other threads run)."""
        view = memoryview(data).cast("B")
        if self._error is None:
            hashed = self._pool.submit(self._digest.update, view)
            try:
                self._write(view)
            except OSError as error:
                self._error = error
            hashed.result()
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered."""

    def _write(self, view: memoryview) -> None:
        for begin in range(0, len(view), CHUNK):
            chunk = view[begin : begin + CHUNK]
            at = self.size
            while len(chunk):
                done = self._file.write(chunk)
                chunk = chunk[done:]
                self.size += done
            if self.size - at == CHUNK:
                os.posix_fadvise(self._file.fileno(), at, CHUNK, os.POSIX_FADV_DONTNEED)


@contextmanager
def _without_crc32() -> Any:
    """torch sums every file with CRC-32 as well, which nobody reads: sha256 says more."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
