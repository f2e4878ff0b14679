"""A file that is hashed as it is written, bypassing the page cache where the file system can (O_DIRECT).

The caller fills a buffer while one thread hashes the previous buffer and another writes it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

BUFFERS = 3
"""One being filled, two being hashed and written."""
BUFFER = 16 << 20
"""Bytes of a buffer: the longest write. A multiple of O_DIRECT's alignment, as is a page."""
O_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""0 on systems without it (macOS)."""


class Staging:
    """Host memory for whole files, in buffers that start at a page. Freed ones are kept for the next files, which so
    do not wait for the kernel to clear pages."""

    def __init__(self) -> None:
        self.free: list[memoryview] = []

    def take(self) -> memoryview:
        """A buffer that no file uses."""
        return self.free.pop() if self.free else _buffer()


class HashedFile:
    """A file written once, from start to end. After the block it is on disk, and `size` and `digest` are set.

    hashed: a BlockHash or a hash of hashlib, which gives the digest. direct: bypass the page cache where possible.
    Filling the cache costs more CPU time than the hash, and evicts what other processes read. sync: False leaves fsync
    to the caller. `write` never raises, because torch's writer handles that badly: the block's exit raises the first
    error.

    staging: the block only copies the file into this memory; `finish`, in any thread, hashes and writes it from there.
    """

    def __init__(
        self, path: Path, hashed: Any, *, direct: bool = True, sync: bool = True, staging: Staging | None = None
    ) -> None:
        self.size, self.digest = 0, ""
        self._file, self._direct = _open(path, direct)
        self._hashed, self._sync, self._staging = hashed, sync, staging
        self._hasher, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._buffer, self._filled = _buffer() if staging is None else staging.take(), 0
        self._staged: list[memoryview] = []
        self._busy: deque[tuple[memoryview, list[Future[None]]]] = deque()
        self._error: OSError | None = None

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None:
        if self._staging is None or kind is not None:
            self._close(whole=kind is None)

    def finish(self) -> None:
        """Hashes and writes a staged file. Raises the first error."""
        self._close(whole=True)

    def abandon(self) -> None:
        """Leaves a staged file incomplete, from any thread; `finish` then raises."""
        self._error = self._error or OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def _close(self, *, whole: bool) -> None:
        """Writes what is left. whole: the caller has written all of it."""
        try:
            for buffer in self._staged if whole and self._error is None else ():
                self._queue(buffer, BUFFER)
            self._queue(self._buffer, self._filled)
            self._hasher.shutdown()
            self._writer.shutdown()
            if self._error is not None:
                raise self._error
            if whole:
                os.ftruncate(self._file, self.size)  # the last write was a whole page
                if self._sync:
                    os.fsync(self._file)
        finally:
            os.close(self._file)
            if self._staging is not None:
                self._staging.free += [*self._staged, self._buffer]
        self.digest = self._hashed.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Copies all of `data` into the buffers."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest):
            if self._filled == BUFFER:
                self._hand_over()
            part = rest[: BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
        self.size += size
        return size

    def flush(self) -> None:
        """Does nothing: buffers are written when they are full or the block ends."""

    def _hand_over(self) -> None:
        """Hands over the full buffer, and takes a free one."""
        if self._staging is not None:
            self._staged.append(self._buffer)
            self._buffer = self._staging.take()
        else:
            self._queue(self._buffer, BUFFER)
            if len(self._busy) < BUFFERS:
                self._buffer = _buffer()
            else:
                self._buffer, tasks = self._busy.popleft()
                wait(tasks)
        self._filled = 0

    def _queue(self, buffer: memoryview, filled: int) -> None:
        """Queues a buffer for hashing and writing."""
        pages = -(-filled // mmap.PAGESIZE)
        tasks = [
            self._hasher.submit(self._hashed.update, buffer[:filled]),  # hashlib releases the GIL
            self._writer.submit(self._write, buffer[: pages * mmap.PAGESIZE]),
        ]
        self._busy.append((buffer, tasks))

    def _write(self, pages: memoryview) -> None:
        while len(pages) and self._error is None:
            try:
                pages = pages[os.write(self._file, pages) :]
            except OSError as error:
                if error.errno == errno.EINVAL and self._direct:  # some file systems refuse O_DIRECT only here
                    self._direct = False
                    fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~O_DIRECT)
                else:
                    self._error = error


def _buffer() -> memoryview:
    """Memory from the start of a page on, as O_DIRECT asks."""
    return memoryview(mmap.mmap(-1, BUFFER))


def _open(path: Path, direct: bool) -> tuple[int, bool]:
    """Opens a new file for writing. Returns the descriptor, and whether it bypasses the page cache."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if direct and O_DIRECT:
        try:
            return os.open(path, flags | O_DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags, 0o666), False
