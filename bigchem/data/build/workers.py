"""Worker processes: they exit with their parent, however it dies, and never run far ahead of it."""

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
    """Cores that this process may use: those it is bound to, but no more than its Slurm job has on this node."""
    bound = len(os.sched_getaffinity(0))
    return min(bound, int(os.environ.get("SLURM_CPUS_ON_NODE") or bound))


@contextmanager
def pool(
    workers: int, where: str, start: Callable[..., object] | None = None, *start_with: Any
) -> Iterator[ProcessPoolExecutor]:
    """Spawned worker processes, each of which calls start(*start_with) first.

    UserError, naming `where`, if one dies (usually out of memory).
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(start, start_with)) as processes:
        try:
            yield processes
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps out of memory",
                where,
                "repeat the command with fewer --workers; a build resumes where it was",
            ) from None
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def naming_the_current_record() -> Iterator[Path]:
    """A folder for `noting_the_current_record`. If a worker dies, UserError names the records in progress."""
    with tempfile.TemporaryDirectory(prefix="bigchem-", ignore_cleanup_errors=True) as notes:
        try:
            yield Path(notes)
        except BrokenProcessPool:
            records = sorted(file.read_text(encoding="utf-8") for file in Path(notes).iterdir())
            listed = [f"{place}:{int(line)}" for line, _, place in (record.partition(" ") for record in records)]
            if not listed:
                raise
            raise UserError(
                f"a worker process died, at {'one of the records ' if len(listed) > 1 else ''}{', '.join(listed)}",
                listed[0].rpartition(":")[0],
                "remove that record, or use fewer --workers if memory ran out; a build resumes where it was",
            ) from None


@contextmanager
def noting_the_current_record(notes: Path) -> Iterator[Callable[[str, int], None]]:
    """In a worker: a function to call with the file and line of each record before processing it. A note of the last
    one is in the folder `notes` until the block ends, and remains if the process dies."""
    name = notes / f"{os.getpid()}-{threading.get_ident()}"
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
    """function(*job) for each job, in order. At most `ahead` jobs are drawn in advance: all of them may exceed
    memory."""
    waiting: deque[Future[R]] = deque()
    for job in jobs:
        waiting.append(processes.submit(function, *job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start(start: Callable[..., object] | None, start_with: tuple[Any, ...]) -> None:
    # There is one process per core already; tokenizers' threads would compete with them.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # A worker waits on a pipe that it keeps open itself, so it would outlive a killed parent.
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    if start is not None:
        start(*start_with)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
