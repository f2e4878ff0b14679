"""A folder that is being filled, and that the next attempt goes on with if this one is killed.

.NAME.lock             beside NAME; held by the process that fills the folder, until that has its name
.NAME.partial/
    unfinished.json    what it is to become, and which files are whole, with their hashes
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.file_lock import exclusive
from bigchem.base.json_file import RecordError
from bigchem.train.checkpoint.store import sha256_of

RECORD = "unfinished.json"


class Unfinished:
    """The folder. identity: what it is to become, as JSON; files of another identity are removed. kept: how many files
    of an attempt before are whole."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self._identity = folder, dict(identity)
        whole = _record(folder / RECORD, self._identity).items()
        self.files = {name: known for name, known in whole if _is(folder / name, known)}
        for path in folder.iterdir():
            if path.name not in self.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.kept = len(self.files)
        self._write()

    def finish(self, name: str, size: int, sha256: str) -> None:
        """Notes that a file is whole and on the disk."""
        self.files[name] = (size, sha256)
        self._write()

    def _write(self) -> None:
        table = {"identity": self._identity, "files": self.files}
        atomic.write_atomically(self.folder / RECORD, json.dumps(table, indent=1))


@contextmanager
def unfinished(path: Path, identity: Mapping[str, Any]) -> Iterator[Unfinished]:
    """A folder to fill; where the block ends, it takes the name `path`, and the place of an older folder.

    Where the block fails with UserError, it is removed; where it is cut off otherwise, it stays. Another process that
    fills it is waited for, and may have made `path` by then: whether that is wanted, the block has to ask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")  # outside of the folder, whose name changes under it
    with exclusive(beside, f"writes {path}", timeout_s=math.inf, transient=True):
        partial = path.with_name(f".{path.name}.partial")
        partial.mkdir(exist_ok=True)
        try:
            yield Unfinished(partial, identity)
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / RECORD).unlink()
        atomic.take_place(partial, path)


def _record(path: Path, identity: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """The whole files that a record lists; none if it is of another identity, or is no record."""
    try:
        table = json_file.load_object(path)
        if table.get("identity") != identity:
            return {}
        return json_file.as_kind(dict[str, tuple[int, str]], table.get("files"), str(path))
    except (FileNotFoundError, RecordError):
        return {}


def _is(path: Path, known: tuple[int, str]) -> bool:
    return path.is_file() and (path.stat().st_size, sha256_of(path)) == known
