"""Progress of long work: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from bigchem.base.printable import markup, printable_lines

PLAIN_EVERY_S = 10.0
"""Seconds between two lines without a terminal."""
LIVE_EVERY_S = 0.2
"""Seconds between two redraws of a live line; each takes the training loop about a millisecond."""


WIDE = 100_000
"""Columns without a terminal: each row is one line, with whole cells."""


def tables() -> Console:
    """The console for tables: stdout, as wide as the terminal, or wide enough to cut nothing."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def amount(size: float) -> str:
    """Bytes with a unit, to three digits: 9.31 MB, 2.67 GB, 31.2 GB."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, after any days: 0:12:05, 2d 3:25:00."""
    minutes, s = divmod(max(0, round(seconds)), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{h}:{m:02d}:{s:02d}"


class Bar:
    """Progress of one piece of work."""

    def __init__(self, progress: Progress, label: str, total: int | None, rich: RichProgress | None) -> None:
        self._progress, self._label, self.total, self._rich = progress, label, total, rich
        self.done = 0
        self._reported = time.monotonic()
        self._task = None if rich is None else rich.add_task(markup(label), total=total)

    def advance(self, amount: int = 1) -> None:
        """Counts work done."""
        self.done += amount
        if self._rich is not None and self._task is not None:
            self._rich.advance(self._task, amount)
        elif time.monotonic() - self._reported > PLAIN_EVERY_S:
            self._reported = time.monotonic()
            of = "" if self.total is None else f"/{self.total}"
            self._progress.say(f"{self._label}: {self.done}{of}")


class Progress:
    """Progress on stderr; stdout is for results. quiet: print nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Prints one line."""
        self.console.print(printable_lines(text), markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Bar]:
        """A bar for `total` pieces of work (None: unknown), replaced by one line at the end."""
        started = time.monotonic()
        if self.console.is_terminal and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with RichProgress(*columns, TimeRemainingColumn(), console=self.console, transient=True) as rich:
                bar = Bar(self, label, total, rich)
                yield bar
        else:
            bar = Bar(self, label, total, None)
            yield bar
        self.say(f"{label}: {bar.done} in {time.monotonic() - started:.1f} s")


class Tee(io.TextIOBase):
    """Writes text to a log and a terminal. log, terminal: the streams, for output to only one of them."""

    def __init__(self, log: TextIO, terminal: TextIO) -> None:
        self.log, self.terminal = log, terminal

    def write(self, text: str) -> int:
        self.log.write(text)
        self.terminal.write(text)
        return len(text)

    def flush(self) -> None:
        self.log.flush()
        self.terminal.flush()


class LiveLine:
    """A bar and a text in the last line of a Tee's terminal, redrawn in place by `show`, without a thread. Other output
    goes above it, and unchanged into the log."""

    def __init__(self, tee: Tee, total: int) -> None:
        console = Console(file=tee.terminal, highlight=False)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"))
        self._rich = RichProgress(
            *columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._rich.add_task("", total=total)
        self._drawn = 0.0
        others = (s for s in (sys.stdout, sys.stderr) if isinstance(s, Tee) and s.terminal.isatty())
        self._replaced = [(other, other.terminal) for other in others]
        for other, terminal in self._replaced:
            other.terminal = FileProxy(console, terminal)  # type: ignore[assignment]
        self._rich.start()

    @staticmethod
    def where_possible(total: int) -> LiveLine | None:
        """A live line on stdout, if that is a Tee with a terminal that can move its cursor."""
        tee = sys.stdout
        if not isinstance(tee, Tee):
            return None
        console = Console(file=tee.terminal)
        return LiveLine(tee, total) if console.is_terminal and not console.is_dumb_terminal else None

    def show(self, done: int, text: str) -> None:
        """Redraws the line, at most every LIVE_EVERY_S."""
        if time.monotonic() - self._drawn > LIVE_EVERY_S:
            self._rich.update(self._task, completed=done, description=text)
            self._rich.refresh()
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Removes the line."""
        self._rich.stop()
        for tee, terminal in self._replaced:
            tee.terminal = terminal
