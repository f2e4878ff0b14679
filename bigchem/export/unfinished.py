"""A folder that is filled file by file, and resumed by the next attempt if this one is killed.

.NAME.lock             beside NAME; locked by the process that fills the folder, until the rename
.NAME.partial/
    unfinished.json    the identity of the result, and the complete files with their hashes
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.file_lock import exclusive
from bigchem.base.json_file import RecordError

RECORD = "unfinished.json"


class Unfinished:
    """The folder. identity: of the result, as JSON; files of another identity are removed. reused: number of complete
    files from an earlier attempt."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self._identity = folder, dict(identity)
        recorded = _record(folder / RECORD, self._identity).items()
        self.files = {name: known for name, known in recorded if _matches(folder / name, known)}
        for path in folder.iterdir():
            if path.name not in self.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.reused = len(self.files)
        self._write()
        self._pool, self._finishing = ThreadPoolExecutor(1), Future[None]()
        self._finishing.set_result(None)

    def finish(self, name: str, size: int, sha256: str) -> None:
        """Brings a complete file to disk and records it, in a thread, after the one before."""
        self.settle()
        self._finishing = self._pool.submit(self._finish, name, size, sha256)

    def settle(self) -> None:
        """Waits until the finished files are in `files`. Raises the disk's error."""
        self._finishing.result()

    def close(self) -> None:
        """Waits without raising."""
        self._pool.shutdown()

    def _finish(self, name: str, size: int, sha256: str) -> None:
        atomic.fsync(self.folder / name)
        self.files[name] = (size, sha256)
        self._write()

    def _write(self) -> None:
        table = {"identity": self._identity, "files": self.files}
        atomic.write_atomically(self.folder / RECORD, json.dumps(table, indent=1))


@contextmanager
def unfinished(path: Path, identity: Mapping[str, Any]) -> Iterator[Unfinished]:
    """A folder to fill. After the block it is renamed to `path`, replacing an older folder.

    A UserError in the block removes the folder; any other interruption leaves it for the next attempt. If another
    process is filling it, this waits. `path` may then exist already, which the block must check.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")  # outside the folder, which is renamed
    with exclusive(beside, f"writes {path}", timeout_s=math.inf, transient=True):
        partial = path.with_name(f".{path.name}.partial")
        partial.mkdir(exist_ok=True)
        work = Unfinished(partial, identity)
        try:
            yield work
            work.settle()
        except UserError:
            work.close()
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            work.close()
        (partial / RECORD).unlink()
        atomic.take_place(partial, path)


def _record(path: Path, identity: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """The complete files in a record; empty for another identity or an invalid record."""
    try:
        table = json_file.load_object(path)
        if table.get("identity") != identity:
            return {}
        return json_file.as_kind(dict[str, tuple[int, str]], table.get("files"), str(path))
    except (FileNotFoundError, RecordError):
        return {}


def _matches(path: Path, known: tuple[int, str]) -> bool:
    if not path.is_file() or path.stat().st_size != known[0]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == known[1]
