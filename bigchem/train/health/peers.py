"""Failure notices between ranks: a rank that fails reports why, and the others exit with it.

A collective operation cannot carry the notice: peers inside an NCCL collective wait there indefinitely, as would this
rank in destroy_process_group. Notices go through the rendezvous store, over separate connections. A thread of each rank
polls it and ends the process wherever the main thread is.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from bigchem.base.printable import one_line
from bigchem.run.exit_codes import call_with_timeout, exit_now
from bigchem.run.lifecycle import EXIT_REQUEUE

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

POLL_S = 0.5
"""Interval between polls of the store."""
LINGER_S = 3.0
"""The longest that the rank serving the store waits for the others to read a notice."""
FAREWELL_S = 20.0
"""The longest that it waits for them at the end of a run: they would take its exit for a failure."""
ANSWER_S = 5.0
"""Timeout of the store for a rank that is exiting: the server may be frozen."""
NOTICE, READ, BYE = "notice", "read", "bye"


@dataclass(frozen=True)
class Notice:
    """Why a rank exits, and the exit code for all."""

    rank: int
    host: str
    reason: str
    code: int

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}) failed: {self.reason}"


class Peers:
    """The other ranks of this process's group.

    store: used for notices only. It is cloned, as operations on one connection block each other. serves: this process
    serves the store. on_loss: called in the thread, with the cause, when the store is gone without a notice; ends the
    process. on_notice: called in the thread with a notice, before this rank exits.
    """

    def __init__(self, store: Store, rank: int, world_size: int, host: str, *, serves: bool) -> None:
        self._rank, self._world_size, self._host, self._serves = rank, world_size, host, serves
        self._served = store  # a reference, or the server would end with the process group
        self._store = store.clone()  # type: ignore[attr-defined]
        self._stop = threading.Event()
        self.on_loss: Callable[[str], object] = _lost
        self.on_notice: Callable[[Notice], object] = lambda notice: None
        threading.Thread(target=self._listen, name="bigchem-peers", daemon=True).start()

    def tell(self, reason: str, code: int) -> Notice:
        """Posts a notice unless another rank was first. Returns the one that counts. The rank that serves the store
        waits for the others to read it."""
        self._stop.set()
        mine = json.dumps(asdict(Notice(self._rank, self._host, reason, code)))

        def post() -> str:
            posted: str = self._store.compare_set(NOTICE, "", mine).decode()
            self._meet(READ, LINGER_S)
            return posted

        return Notice(**json.loads(call_with_timeout(LINGER_S + ANSWER_S, post) or mine))

    def notice(self) -> Notice | None:
        """Another rank's notice, if there is one and the store still answers."""
        return call_with_timeout(ANSWER_S, self._read)

    def quiet(self) -> None:
        """Ignores notices from now on."""
        self._stop.set()

    def part(self) -> None:
        """Ends a successful run: the rank that serves the store waits for the others to get here."""
        self._stop.set()
        call_with_timeout(FAREWELL_S + ANSWER_S, lambda: self._meet(BYE, FAREWELL_S))

    def _listen(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                notice = self._read()
            except RuntimeError as error:  # includes DistNetworkError and DistStoreError
                if not self._stop.is_set():
                    self.on_loss(one_line(error))
                return
            if notice is not None and not self._stop.is_set():
                print(f"{notice}: this rank exits", file=sys.stderr, flush=True)
                with suppress(RuntimeError):
                    self._meet(READ, LINGER_S)
                call_with_timeout(ANSWER_S, partial(self.on_notice, notice))
                exit_now(notice.code)

    def _read(self) -> Notice | None:
        return Notice(**json.loads(self._store.get(NOTICE))) if self._store.check([NOTICE]) else None

    def _meet(self, key: str, timeout_s: float) -> None:
        """Counts this rank; the one that serves the store waits until all are counted."""
        until = time.monotonic() + timeout_s
        count = self._store.add(key, 1)
        while self._serves and count < self._world_size and time.monotonic() < until:
            time.sleep(0.02)
            count = self._store.add(key, 0)


_peers: Peers | None = None


def join(store: Store, rank: int, world_size: int, host: str, *, serves: bool) -> None:
    """Starts to exchange notices with the other ranks. See Peers."""
    global _peers
    if world_size > 1:
        _peers = Peers(store, rank, world_size, host, serves=serves)


def current() -> Peers | None:
    """The other ranks; None if there are none or the run is over."""
    return _peers


def part() -> None:
    """Ends a successful run. See Peers.part."""
    global _peers
    if _peers is not None:
        _peers.part()
    _peers = None


def exit_with_peers(reason: str, code: int) -> NoReturn:
    """Reports to the other ranks why this one exits, and exits at once with the first notice's code."""
    if _peers is not None:
        notice = _peers.tell(reason, code)
        if notice.reason != reason:
            print(f"{notice}, before this rank failed", file=sys.stderr, flush=True)
        code = notice.code
    exit_now(code)


def _lost(cause: str) -> NoReturn:
    print(f"lost the connection to rank 0 ({cause}): this rank exits", file=sys.stderr, flush=True)
    exit_now(EXIT_REQUEUE)
