"""Access to a data folder's files: in a local folder, at a URL through the cache, or at a URL read once."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from bigchem.base.errors import StorageError, UserError
from bigchem.data.storage import remote
from bigchem.data.storage.cache import Cache, mapped
from bigchem.data.storage.index import File, Index

COPY = "copy it again, or build the data again"


class Files(Protocol):
    """The files of one data folder. where: the folder or URL as the user gave it."""

    where: str

    def index(self) -> Index:
        """The parsed index.json; UserError if there is none."""

    def buffer(self, name: str, file: File) -> pa.Buffer:
        """The content of a listed file; UserError naming it if it is missing or damaged."""


class Local:
    """A local folder, memory-mapped. Sizes are always checked; check: hashes too, when a file is first opened."""

    def __init__(self, root: Path, *, check: bool) -> None:
        self.root, self.where, self._check = root, str(root), check
        self._checked: set[str] = set()

    def index(self) -> Index:
        """The parsed index.json; UserError if there is none."""
        file = self.root / "index.json"
        if not file.is_file():
            raise UserError(
                "no data here: index.json is missing", self.where, f"bigchem data build RECIPE.toml {self.where}"
            )
        return Index.from_json(file.read_text(encoding="utf-8", errors="replace"), str(file))

    def buffer(self, name: str, file: File) -> pa.Buffer:
        """The content of a listed file; UserError naming it if it is missing or damaged."""
        path = self.root / name
        try:
            content = mapped(path)
        except FileNotFoundError:
            raise UserError("missing", str(path), COPY) from None
        except OSError as error:
            raise StorageError(f"cannot read: {error}", str(path), COPY) from None
        due = self._check and name not in self._checked
        damage = file.damage(content.size, hashlib.sha256(content).hexdigest() if due else None)
        if damage is not None:
            raise UserError(damage, str(path), COPY)
        self._checked.add(name)
        return content

    def folder(self, name: str, files: Mapping[str, File]) -> Path:
        """The path of a subfolder; its files are checked like any other."""
        for path, file in files.items():
            self.buffer(path, file)
        return self.root / name


class Streamed:
    """A URL whose files are read into memory, each once."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")

    def index(self) -> Index:
        """The parsed index.json; UserError if there is none."""
        url = f"{self.where}/index.json"
        return Index.from_json(remote.read(url).decode(errors="replace"), url)

    def buffer(self, name: str, file: File) -> pa.Buffer:
        """The content of a listed file; UserError naming it if it is missing or damaged."""
        content = bytearray()
        remote.download(f"{self.where}/{name}", file, content.extend, content.clear)
        return pa.py_buffer(content)


class Cached(Streamed):
    """A URL whose files are memory-mapped in a local cache, which checks size and hash."""

    def __init__(self, url: str, cache: Cache) -> None:
        super().__init__(url)
        self._cache = cache

    def buffer(self, name: str, file: File) -> pa.Buffer:
        """The content of a listed file; UserError naming it if it is missing or damaged."""
        return self._cache.buffer(f"{self.where}/{name}", file)

    def folder(self, name: str, files: Mapping[str, File]) -> Path:
        """The path of a local copy of a folder."""
        return self._cache.folder(self.where, files) / name
