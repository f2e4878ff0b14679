"""A bounded local cache of remote files, shared by all ranks of a node and by several runs.

    CACHE/files/<sha256>            a complete, verified file; its mtime is its last use
    CACHE/files/<sha256>.partial    being downloaded; has its final size from the start, so it counts in full
    CACHE/folders/<hash>/           small folders (tokenizers) under their own names: not counted, not evicted
    CACHE/lock                      held while files are counted, evicted or published

A download holds the flock of its partial file: other processes that want the file wait for it. A partial file whose
flock is free belongs to a dead process and is reclaimed, so processes may be killed at any time.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from bigchem.base.errors import UserError
from bigchem.base.file_lock import NoLocksError, is_at, lock
from bigchem.data.storage import remote
from bigchem.data.storage.index import File

MAX_BYTES = 50_000_000_000
WAIT_S = 0.02
"""Pause between checks for room while other downloads occupy all of it."""


class Cache:
    """Files of at most `max_bytes` together; the least recently used are evicted first.

    path: default $BIGCHEM_CACHE, or else ~/.cache/bigchem/shards. Processes that share a folder need not agree on
    max_bytes. A file that is evicted while mapped stays readable; its space is freed when it is unmapped.
    """

    def __init__(self, path: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        default = os.environ.get("BIGCHEM_CACHE") or "~/.cache/bigchem/shards"
        self.path = Path(path or default).expanduser()
        self.max_bytes = max_bytes
        self._files = self.path / "files"
        try:
            self._files.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create the cache: {error.strerror}", str(self.path), "set data.cache or $BIGCHEM_CACHE"
            ) from None
        _refuse_without_locks(self.path / "lock")
        self._verified: set[str] = set()

    def buffer(self, url: str, file: File) -> pa.Buffer:
        """The file's content, memory-mapped; downloaded if it is not cached.

        Size and hash are checked on download and once by every Cache object. UserError naming the URL.
        """
        if file.bytes > self.max_bytes:
            raise UserError(
                f"{file.bytes:,} bytes do not fit a cache of {self.max_bytes:,}", url, "raise data.cache_gb"
            )
        while True:
            found = self._find(file) or self._download(url, file)
            if found is not None:
                return found

    def folder(self, url: str, files: Mapping[str, File]) -> Path:
        """A local folder with a few small remote files under their own names, given relative to the URL."""
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        folder = self.path / "folders" / digest
        for name, file in files.items():
            path = folder / name
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256:
                continue
            content = self.buffer(f"{url}/{name}", file)
            with self._locked():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.partial")
                partial.write_bytes(content)
                partial.replace(path)
        return folder

    def _find(self, file: File) -> pa.Buffer | None:
        path = self._files / file.sha256
        try:
            content = mapped(path)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # just evicted, or another user's: the content is valid all the same
            os.utime(path)
        known = file.sha256 in self._verified
        if file.damage(content.size, None if known else hashlib.sha256(content).hexdigest()) is not None:
            path.unlink(missing_ok=True)
            return None
        self._verified.add(file.sha256)
        return content

    def _download(self, url: str, file: File) -> pa.Buffer | None:
        """Downloads and publishes a file. None: another process did; look it up again."""
        target = self._files / file.sha256
        path = target.with_name(f"{file.sha256}.partial")
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as partial:
            lock(partial)
            if not is_at(partial, path):
                return None
            try:
                if target.exists():
                    return None
                partial.truncate(0)  # leftovers of a killed process
                self._reserve(partial, path, file.bytes)
                remote.download(url, file, partial.write, lambda: partial.seek(0))
                partial.flush()
                os.fsync(partial.fileno())
                content = mapped(path)  # before it can be evicted, so that every download makes progress
                with self._locked():  # a concurrent count would see the file under neither name, or both
                    path.replace(target)
            except OSError as error:
                raise UserError(f"cannot write: {error}", str(path), "free space, or set BIGCHEM_CACHE") from None
            finally:
                if is_at(partial, path):
                    path.unlink()
        self._verified.add(file.sha256)
        return content

    def _reserve(self, partial: BinaryIO, path: Path, size: int) -> None:
        """Evicts until `size` bytes fit, and reserves them. Waits while other downloads need the room."""
        while True:
            with self._locked():
                if self._make_room(path, size):
                    partial.truncate(size)
                    return
            time.sleep(WAIT_S)

    def _make_room(self, own: Path, size: int) -> bool:
        """Called under the lock. False: other downloads leave no room."""
        downloads, whole = 0, []
        for path in self._files.iterdir():
            if path == own:
                continue
            if path.suffix == ".partial":
                downloads += _reclaim(path)
            else:
                with suppress(FileNotFoundError):  # another process just found it damaged
                    whole.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        excess = downloads + size - self.max_bytes
        if excess > 0:
            return False
        excess += sum(length for _, length, _ in whole)
        for _, length, path in sorted(whole):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= length
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.path / "lock").open("ab") as handle:
            lock(handle)
            yield


def _refuse_without_locks(file: Path) -> None:
    """UserError if the file system has no locks, since processes that share a cache may write at any time."""
    with file.open("a+b") as handle:
        try:
            lock(handle, wait=False, shared=True)
        except NoLocksError as error:
            remedy = "set data.cache or $BIGCHEM_CACHE to a folder on a local disk"
            raise UserError(error.what, str(file.parent), remedy) from None


def mapped(path: Path) -> pa.Buffer:
    """A file's content, memory-mapped. No file descriptor stays open, so thousands may be mapped."""
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _reclaim(path: Path) -> int:
    """Bytes that a running download occupies. A dead process's partial file is removed and counts 0."""
    try:
        with path.open("r+b") as handle:
            size = os.fstat(handle.fileno()).st_size
            if not lock(handle, wait=False):
                return size
            if is_at(handle, path):
                path.unlink()
    except FileNotFoundError:
        pass
    return 0
