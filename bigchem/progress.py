"""What a person sees while long work goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""


def tables() -> Console:
    """Where tables go: stdout, as wide as the terminal; without one wide enough that nothing is cut."""
    return Console() if sys.stdout.isatty() else Console(width=240)


class Bar:
    """One piece of work in progress."""

    def __init__(self, progress: Progress, label: str, total: int | None, rich: RichProgress | None) -> None:
        self._progress, self._label, self.total, self._rich = progress, label, total, rich
        self.done = 0
        self._said = time.monotonic()
        self._task = None if rich is None else rich.add_task(label, total=total)

    def advance(self, amount: int = 1) -> None:
        """Counts work done."""
        self.done += amount
        if self._rich is not None and self._task is not None:
            self._rich.advance(self._task, amount)
        elif time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            of = "" if self.total is None else f"/{self.total}"
            self._progress.say(f"{self._label}: {self.done}{of}")


class Progress:
    """Where progress goes: stderr, so that stdout stays for results. quiet: nowhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Bar]:
        """A bar for `total` pieces of work (None: unknown), gone when the work is done and replaced by one line."""
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
