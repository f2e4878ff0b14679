"""Atomic writes: files and folders are written aside, fsynced and renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replace_atomically(path: Path, *, make_folder: bool = True) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces `path` when the block ends, fsynced, and is removed if the block fails.
    Readers see the old file or the new one, never a part. make_folder: create the parent folder."""
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def take_place(partial: Path, path: Path) -> None:
    """Fsyncs a folder with all its contents and renames it to `path`, replacing an older folder."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    for inside in [*partial.rglob("*"), partial]:
        fsync(inside)
    if path.exists():
        path.rename(old)
    partial.rename(path)
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)
