"""`bigchem logs --rank all`: the logs of all ranks merged in the order in which their lines were written.

An index beside each rank's log (run/log_files.py, Log) has the time of its lines. Lines of two ranks are in order as
far as the clocks of their nodes agree.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 65536


class Line(NamedTuple):
    """A line of a rank's log. time: when it was written, in seconds since 1970; 0 if unknown."""

    time: float
    rank: int
    text: bytes

    def shown(self, width: int) -> bytes:
        """The line with its local time and rank. width: digits of the highest rank."""
        seconds, milliseconds = divmod(round(self.time * 1000), 1000)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{milliseconds:03d}"
        head = f"{when if self.time else '-':23}  {self.rank:>{width}}  ".encode()
        return head + self.text.rstrip(b"\n") + b"\n"


@dataclass
class Reader:
    """Reads a rank's log as it grows, from its beginning or end."""

    path: Path
    rank: int
    at: int = 0
    seen: int = 0
    _times: list[tuple[int, float]] = field(default_factory=list)
    _times_at: int = 0

    def last(self, lines: int, *, whole: bool = False) -> list[Line]:
        """The last `lines` lines; `grown` continues after them. whole: leave an incomplete last line for later."""
        with self.path.open("rb") as file:
            self.at = start_of(file, lines)
        self._times_at = _index_before(self.path.with_suffix(".times"), self.at)
        self.seen = self.path.stat().st_size
        return self._read(self.seen, whole=whole)

    def grown(self, *, whole: bool = True) -> list[Line]:
        """New lines that already existed at the last call: newer ones may not be in the index yet. Opens no file if
        there is nothing new. whole: leave an incomplete line for later."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        until, self.seen = (self.seen if whole else size), size
        return self._read(until, whole=whole) if until > self.at else []

    def _read(self, until: int, *, whole: bool) -> list[Line]:
        with self.path.open("rb") as file:
            file.seek(self.at)
            text = file.read(until - self.at)
        if whole:
            text = text[: text.rfind(b"\n") + 1]
        self._read_times()
        lines, offsets = [], [offset for offset, _ in self._times]
        for line in text.splitlines(keepends=True):
            number = bisect_right(offsets, self.at)
            lines.append(Line(self._times[number - 1][1] if number else 0.0, self.rank, line))
            self.at += len(line)
        self._times = self._times[max(0, bisect_right(offsets, self.at) - 1) :]
        return lines

    def _read_times(self) -> None:
        """Reads new entries of the index, skipping any that a full disk or a kill cut short."""
        with suppress(FileNotFoundError), self.path.with_suffix(".times").open("rb") as file:
            file.seek(self._times_at)
            text = file.read()
            text = text[: text.rfind(b"\n") + 1]
            self._times_at += len(text)
            for line in text.splitlines():
                with suppress(ValueError):
                    offset, when = line.split()
                    self._times.append((int(offset), max(float(when), self._times[-1][1] if self._times else 0.0)))


class Merged:
    """All ranks' logs of a folder, including those that appear later."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._readers = folder, dict[int, Reader]()
        self._waiting, self._last_call = list[Line](), 0.0

    def last(self, lines: int, *, follow: bool = False) -> Iterator[bytes]:
        """The last `lines` lines of all ranks. follow: leave incomplete lines to `grown`, which is called next."""
        now = time.time()
        found = _in_order(line for reader in self._all() for line in reader.last(lines, whole=follow))
        self._last_call = now
        return self._shown(found[len(found) - min(lines, len(found)) :])

    def grown(self, *, over: bool = False) -> Iterator[bytes]:
        """The lines written up to the last call; over: up to now.

        Later lines wait for the next call, when the other ranks' have been read too.
        """
        now = time.time()
        self._waiting += [line for reader in self._all() for line in reader.grown(whole=not over)]
        ready = _in_order(line for line in self._waiting if over or line.time < self._last_call)
        self._waiting = [line for line in self._waiting if not over and line.time >= self._last_call]
        self._last_call = now
        return self._shown(ready)

    def _all(self) -> Iterable[Reader]:
        for path in self._folder.glob("rank*.log"):
            rank = int(path.stem.removeprefix("rank"))
            self._readers.setdefault(rank, Reader(path, rank))
        return self._readers.values()

    def _shown(self, lines: list[Line]) -> Iterator[bytes]:
        width = len(str(max(self._readers, default=0)))
        return (line.shown(width) for line in lines)


def _in_order(lines: Iterable[Line]) -> list[Line]:
    """Sorts by time, then rank; lines of one rank and time, as in a traceback, keep their order."""
    return sorted(lines, key=itemgetter(0, 1))


def start_of(file: BinaryIO, lines: int) -> int:
    """The offset of a file's last `lines` lines. Reads from its end."""
    end = file.seek(0, 2)
    found, at = b"", end
    while at > 0 and found.count(b"\n") <= lines:
        at = max(0, at - BLOCK)
        file.seek(at)
        found = file.read(end - at)
    if lines <= 0:
        return end
    return end - sum(map(len, found.splitlines(keepends=True)[-lines:]))


def _index_before(path: Path, offset: int) -> int:
    """Where to start reading an index to find the time of the line at this offset. Reads from its end."""
    try:
        with path.open("rb") as file:
            block = file.seek(0, 2)
            while block > 0:
                block = max(0, block - BLOCK)
                file.seek(block)
                start = block + len(file.readline()) if block else 0
                first = file.readline().split()
                if len(first) == 2 and first[0].isdigit() and int(first[0]) <= offset:
                    return start
    except FileNotFoundError:
        pass
    return 0
