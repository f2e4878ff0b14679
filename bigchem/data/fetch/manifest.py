"""What a tree of public files holds, and where each file comes from."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bigchem.base import toml
from bigchem.base.errors import unknown
from bigchem.base.toml import Section
from bigchem.data.storage.index import File

_FOLDER = Path(__file__).parent
CHUNK = 1 << 20


class Origin(Section):
    """A file of a group, as the manifest has it."""

    name: str
    """Its name in the group's folder; `.gz` is compressed here."""
    bytes: int
    """Of its content, decompressed."""
    sha256: str
    """Of its content, decompressed."""
    url: str | None = None
    """Address of the file or of an archive that holds it, after the group's `base`."""
    member: str | None = None
    """The file's name inside that archive, without folders."""
    tokens: tuple[str, str] | None = None
    """Instead of `url`: addresses of products with a reaction class and of reactants, both split into characters."""


class Group(Section):
    """The files of one folder, all of one origin."""

    folder: str
    origin: str
    licence: str
    base: str = ""
    hint: str = ""
    files: tuple[Origin, ...]


class _Manifest(Section):
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Wanted:
    """A file of the tree. path: in it. content: size and hash, decompressed. urls: one, two of `tokens`, or none."""

    path: str
    content: File
    urls: tuple[str, ...]
    member: str | None
    group: Group

    def damage(self, root: Path) -> str | None:
        """What is wrong with the file in a tree; None: nothing. FileNotFoundError if it is not there."""
        digest, size = hashlib.sha256(), 0
        try:
            with opened(root / self.path) as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except (EOFError, gzip.BadGzipFile) as error:
            return f"not gzip: {error}"
        return self.content.damage(size, digest.hexdigest())


def opened(path: Path) -> IO[bytes]:
    """A file's content, decompressed if it is called .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def names() -> list[str]:
    """The trees that can be fetched."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name: str) -> list[Wanted]:
    """The files of a tree, by its name. UserError for an unknown one."""
    if name not in names():
        unknown("data set", name, names(), "data fetch")
    return wanted(toml.load(_Manifest, _FOLDER / f"{name}.toml").groups)


def wanted(groups: tuple[Group, ...]) -> list[Wanted]:
    """The files of some groups."""
    return [
        Wanted(
            f"{group.folder}/{file.name}",
            File(file.bytes, file.sha256),
            tuple(group.base + part for part in file.tokens or filter(None, (file.url,))),
            file.member,
            group,
        )
        for group in groups
        for file in group.files
    ]
