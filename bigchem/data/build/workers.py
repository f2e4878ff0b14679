"""Processes that parse and write: they die with their parent, however it dies, and never run far ahead of it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bigchem.base.errors import UserError

R = TypeVar("R")


def cores() -> int:
    """Of this process's job on Slurm, or of this machine."""
    return int(os.environ.get("SLURM_CPUS_ON_NODE") or os.cpu_count() or 1)


@contextmanager
def pool(
    workers: int, where: str, start: Callable[..., object] | None = None, *start_with: Any
) -> Iterator[ProcessPoolExecutor]:
    """Spawned worker processes, in each of which start(*start_with) is called first.

    UserError, naming `where`, if one dies (out of memory, as a rule).
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(start, start_with)) as processes:
        try:
            yield processes
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps for want of memory",
                where,
                "give the same command again with fewer --workers; a build goes on where it was",
            ) from None
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def naming_the_current_record() -> Iterator[Path]:
    """A folder for `at_hand`. Where a worker dies meanwhile, UserError names the records that workers had."""
    with tempfile.TemporaryDirectory(prefix="bigchem-", ignore_cleanup_errors=True) as desk:
        try:
            yield Path(desk)
        except BrokenProcessPool:
            records = sorted(file.read_text(encoding="utf-8") for file in Path(desk).iterdir())
            listed = [f"{place}:{int(line)}" for line, _, place in (record.partition(" ") for record in records)]
            if not listed:
                raise
            raise UserError(
                f"a worker process died, at {'one of the records ' if len(listed) > 1 else ''}{', '.join(listed)}",
                listed[0].rpartition(":")[0],
                "leave that record out, or give fewer --workers if memory was short; a build goes on where it was",
            ) from None


@contextmanager
def noting_the_current_record(desk: Path) -> Iterator[Callable[[str, int], None]]:
    """In a worker: what to call with the file and the line of each record before it is touched. A note of the last one
    is in `desk` until the block ends, and stays where the process dies."""
    name = desk / f"{os.getpid()}-{threading.get_ident()}"
    descriptor = os.open(name, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    places: list[str] = []

    def note(place: str, line: int) -> None:
        if [place] != places:
            places[:] = [place]
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{line:015d} {place}".encode("utf-8", "replace"), 0)
        else:
            os.pwrite(descriptor, b"%015d" % line, 0)

    try:
        yield note
    finally:
        os.close(descriptor)
        name.unlink(missing_ok=True)


def in_order(
    processes: ProcessPoolExecutor, function: Callable[..., R], jobs: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[R]:
    """function(*job) for each job, in order. At most `ahead` jobs are drawn before they are needed: what makes them may
    be larger than memory."""
    waiting: deque[Future[R]] = deque()
    for job in jobs:
        waiting.append(processes.submit(function, *job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start(start: Callable[..., object] | None, start_with: tuple[Any, ...]) -> None:
    # One process a core already: threads of tokenizers would only get in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # A worker waits for work on a pipe that it holds open itself, so that it would outlive a parent that is killed.
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    if start is not None:
        start(*start_with)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
