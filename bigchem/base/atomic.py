"""Atomic writes: files and folders are written aside, fsynced and renamed."""

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux's renameat2(2)."""


@contextmanager
def replace_atomically(path: Path, *, make_folder: bool = True) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces `path` when the block ends, fsynced, and is removed if the block fails.
    Readers see the old file or the new one, never a part. make_folder: create the parent folder."""
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path, "partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # write() does not set it
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes | memoryview, *, make_folder: bool = True) -> None:
    """Writes a file as replace_atomically does."""
    with replace_atomically(path, make_folder=make_folder) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that replaces `path` when the block ends, all of it fsynced, and is removed if
    the block fails."""
    partial = _beside(path, "partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def take_place(partial: Path, path: Path) -> None:
    """Fsyncs a folder with all its contents and renames it to `path`, replacing an older folder.

    Replaces it in one step. Only on a file system that cannot, such as NFS, a kill between two renames leaves nothing
    at `path`, and the older folder beside it as .NAME.*.old.
    """
    for inside in [*partial.rglob("*"), partial]:
        fsync(inside)
    old = partial
    if not path.exists():
        partial.rename(path)
    elif not _exchange(partial, path):
        old = path.rename(_beside(path, "old"))
        partial.rename(path)
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    """A hidden temporary name in the same folder, which no other process or thread uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


def _exchange(one: Path, other: Path) -> bool:
    """Whether two folders have exchanged their names in one step: not every system or file system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return renameat2 is not None and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
