"""Checks published data: every file's size and hash, every shard's rows, and all lengths against the real tokens."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.storage import remote
from bigchem.data.storage.columns import Columns, DamagedError, Lengths, read_lengths
from bigchem.data.storage.files import Files, Local, Streamed
from bigchem.data.storage.index import Index, Shard, lengths_path
from bigchem.data.storage.shards import lost_rows

THREADS = 8
"""Files checked at a time. Behind a URL, as many shards are in memory."""


@dataclass(frozen=True)
class Damage:
    """One damaged file. rows: first and last row lost by it, numbered within `of` ("train/forward"); None: a
    tokenizer's file, without which no row can be used."""

    path: str
    what: str
    of: str | None = None
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        lost = (
            "" if self.rows is None else f": {lost_rows(self.rows[0], 1 + self.rows[1] - self.rows[0], str(self.of))}"
        )
        return f"{self.path}: {self.what}{lost}"


@dataclass(frozen=True)
class Report:
    """What was checked, and all damage."""

    files: int
    bytes: int
    rows: int
    damage: list[Damage]

    @property
    def ok(self) -> bool:
        """Whether there is no damage."""
        return not self.damage

    @property
    def rows_lost(self) -> int:
        """Rows that damaged files make unusable, each counted once; all rows if a tokenizer's file is damaged."""
        if any(damage.of is None for damage in self.damage):
            return self.rows
        lost, upto, of = 0, -1, None
        for damage in sorted((d for d in self.damage if d.rows and d.of), key=lambda d: (d.of, d.rows)):
            first, last = damage.rows  # type: ignore[misc]  # None is filtered out above
            upto = upto if damage.of == of else -1
            lost += max(0, last - max(first - 1, upto))
            upto, of = max(upto, last), damage.of
        return lost


@dataclass(frozen=True)
class _Part:
    """A shard and the number of its first row within its task."""

    split: str
    task: str
    shard: Shard
    first: int

    @property
    def lengths(self) -> str:
        return lengths_path(self.split, self.task)

    def damage(self, what: str) -> Damage:
        return Damage(
            self.shard.path, what, f"{self.split}/{self.task}", (self.first, self.first + self.shard.rows - 1)
        )


def verify(path: str | Path, progress: Progress) -> Report:
    """Reads and checks a whole data folder or URL; a URL is streamed, not cached. UserError if there is no index."""
    files: Files = Streamed(str(path)) if remote.is_url(path) else Local(Path(path), check=True)
    index = files.index()
    parts = list(_parts(index))
    rows = Counter[str]()
    for part in parts:
        rows[part.lengths] += part.shard.rows
    sizes = [file.bytes for file in index.files.values()] + [part.shard.bytes for part in parts]
    damage: list[Damage] = []
    with progress.bar(f"verifying {path}", len(sizes)) as bar, ThreadPoolExecutor(THREADS) as pool:
        lengths: dict[str, Lengths] = {}  # read first: shards are compared with them
        for name, found in zip(
            index.files, pool.map(lambda name: _other(files, index, name, rows[name]), index.files), strict=True
        ):
            bar.advance()
            if isinstance(found, Damage):
                damage.append(found)
            elif found is not None:
                lengths[name] = found
        for wrong in pool.map(lambda part: _shard(files, part, lengths.get(part.lengths)), parts):
            bar.advance()
            damage += [] if wrong is None else [wrong]
    return Report(len(sizes), sum(sizes), sum(part.shard.rows for part in parts), damage)


def _parts(index: Index) -> Iterator[_Part]:
    for split, task, shards in index.tasks():
        first = 0
        for shard in shards:
            yield _Part(split, task, shard, first)
            first += shard.rows


def _other(files: Files, index: Index, name: str, rows: int) -> Damage | Lengths | None:
    """Checks a file that is not a shard. rows: of a lengths file, which is then returned; 0 for any other."""
    try:
        content = files.buffer(name, index.files[name])
        return read_lengths(content, rows) if rows else None
    except (UserError, DamagedError) as error:
        if not rows:
            return Damage(name, _what(error))
        of = name.removeprefix("lengths/").removesuffix(".npy").replace("-", "/", 1)
        return Damage(name, _what(error), of, (0, rows - 1))


def _shard(files: Files, part: _Part, lengths: Lengths | None) -> Damage | None:
    try:
        columns = Columns(files.buffer(part.shard.path, part.shard.file), part.shard.rows)
    except (UserError, DamagedError) as error:
        return part.damage(_what(error))
    if lengths is None:
        return None
    stated = lengths[part.first : part.first + part.shard.rows]
    wrong = int((columns.lengths != stated).any(axis=1).sum())
    return part.damage(f"{wrong:,} rows disagree with the token counts in the lengths") if wrong else None


def _what(error: UserError | DamagedError) -> str:
    return error.what if isinstance(error, UserError) else str(error)
