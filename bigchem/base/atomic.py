"""Files and folders that are whole or not there: written aside, fsynced, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replace_atomically(path: Path, *, make_folder: bool = True) -> Iterator[BinaryIO]:
    """A file to write to aside; it is fsynced and renamed where the block ends, and removed where it fails. A reader
    sees the old file or the new one, never half of one. make_folder: it lies in, if there is none."""
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
            error.filename = str(path)  # that of a write says nothing of where
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Has a file's content, or a folder's names, on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes | memoryview, *, make_folder: bool = True) -> None:
    """Writes a file whole or not at all: see replace_atomically."""
    with replace_atomically(path, make_folder=make_folder) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill aside: where the block ends, all that is in it is fsynced and it takes the name, and the
    place of an older folder; where the block fails, it is removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def take_place(partial: Path, path: Path) -> None:
    """Fsyncs a folder and all that is in it, and gives it the name `path`, and the place of an older folder."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    for inside in [*partial.rglob("*"), partial]:
        fsync(inside)
    if path.exists():
        path.rename(old)
    partial.rename(path)
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)
