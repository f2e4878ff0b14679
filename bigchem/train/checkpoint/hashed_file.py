"""A file that is hashed while it is written, past the page cache where the file system can (O_DIRECT).

Three things go on at once: the caller fills a buffer, one thread hashes the buffer before it, another writes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

BUFFERS = 3
"""One that is filled, and two that are hashed and written."""
BUFFER = 16 << 20
"""Bytes of a buffer: the longest write. A multiple of what O_DIRECT asks of lengths and offsets, as is a page."""
O_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""0 where the system has none (macOS)."""


class HashedFile:
    """A file to write to once, from beginning to end. When the block ends it is on the disk, with its size and sha256.

    direct: past the page cache where that can be done: filling the cache costs more processor time than the hash, and
    throws out what others read. write never raises, for torch's writer does not survive that well: the first error
    comes when the block ends.
    """

    def __init__(self, path: Path, *, direct: bool = True) -> None:
        self.size, self.sha256 = 0, ""
        self._file, self._direct = _open(path, direct)
        self._digest = hashlib.sha256()
        self._hasher, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._buffer, self._filled, self._made = memoryview(mmap.mmap(-1, BUFFER)), 0, 1
        self._busy: deque[tuple[memoryview, list[Future[None]]]] = deque()
        self._error: OSError | None = None

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None:
        try:
            self._hand_over()
            self._hasher.shutdown()
            self._writer.shutdown()
            if self._error is not None:
                raise self._error
            if kind is None:
                os.ftruncate(self._file, self.size)  # the last page was written whole
                os.fsync(self._file)
        finally:
            os.close(self._file)
        self.sha256 = self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Takes all of `data`: it is copied, and free again."""
        rest = memoryview(data).cast("B")
        taken = len(rest)
        while len(rest):
            if self._filled == BUFFER:
                self._hand_over()
            part = rest[: BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
        self.size += taken
        return taken

    def flush(self) -> None:
        """What is buffered stays so until the block ends."""

    def _hand_over(self) -> None:
        """Lets the buffer be hashed and written, and takes one that is free."""
        full, pages = self._buffer[: self._filled], -(-self._filled // mmap.PAGESIZE)
        tasks = [
            self._hasher.submit(self._digest.update, full),  # hashlib lets other threads run
            self._writer.submit(self._write, self._buffer[: pages * mmap.PAGESIZE]),
        ]
        self._busy.append((self._buffer, tasks))
        if self._made < BUFFERS:
            self._buffer, self._made = memoryview(mmap.mmap(-1, BUFFER)), self._made + 1
        else:
            self._buffer, tasks = self._busy.popleft()
            wait(tasks)
        self._filled = 0

    def _write(self, pages: memoryview) -> None:
        while len(pages) and self._error is None:
            try:
                pages = pages[os.write(self._file, pages) :]
            except OSError as error:
                if error.errno == errno.EINVAL and self._direct:  # some file systems say so only now
                    self._direct = False
                    fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~O_DIRECT)
                else:
                    self._error = error


def _open(path: Path, direct: bool) -> tuple[int, bool]:
    """A new file to write to, and whether past the page cache."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if direct and O_DIRECT:
        try:
            return os.open(path, flags | O_DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags, 0o666), False
