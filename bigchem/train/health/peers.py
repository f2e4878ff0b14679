"""Notices between ranks: one that fails tells the others why, and they leave with it.

The word cannot go through a collective operation. Peers that stand in one of NCCL's wait there for ever, and so would
this rank in destroy_process_group. So it goes through the store at which the ranks met, over connections of its own: a
thread of each rank asks for it and ends the process, wherever its main thread stands.
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

from bigchem.run.exit_codes import call_with_timeout, exit_now
from bigchem.run.lifecycle import EXIT_REQUEUE

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

POLL_S = 0.5
"""Between two looks at the store."""
LINGER_S = 3.0
"""The longest that the rank which serves the store stays for the others to read a notice."""
FAREWELL_S = 20.0
"""The longest that it stays for them at the end of a run: they would take its end for a loss."""
ANSWER_S = 5.0
"""For the store to answer a rank that is leaving: its server may be frozen."""
NOTICE, READ, BYE = "notice", "read", "bye"


@dataclass(frozen=True)
class Notice:
    """Why a rank leaves, and the exit code of all."""

    rank: int
    host: str
    reason: str
    code: int

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}) failed: {self.reason}"


class Peers:
    """The other ranks of this process's group.

    store: where only notices are left; this connects to it once more, as operations of one connection wait for each
    other. serves: the store ends with this process. on_loss: ends the process when the store is gone and nobody has
    left a notice; called in the thread with the cause. on_notice: called there with a notice, before it is followed.
    """

    def __init__(self, store: Store, rank: int, world_size: int, host: str, *, serves: bool) -> None:
        self._rank, self._world_size, self._host, self._serves = rank, world_size, host, serves
        self._kept = store  # it is what serves, and would go with the process group
        self._store = store.clone()  # type: ignore[attr-defined]
        self._stop = threading.Event()
        self.on_loss: Callable[[str], object] = _lost
        self.on_notice: Callable[[Notice], object] = lambda notice: None
        threading.Thread(target=self._listen, name="bigchem-peers", daemon=True).start()

    def tell(self, reason: str, code: int) -> Notice:
        """Leaves a notice, unless another rank was first; the one that counts. The rank that serves the store waits
        until the others have read it."""
        self._stop.set()
        mine = json.dumps(asdict(Notice(self._rank, self._host, reason, code)))

        def leave_it() -> str:
            told: str = self._store.compare_set(NOTICE, "", mine).decode()
            self._meet(READ, LINGER_S)
            return told

        return Notice(**json.loads(call_with_timeout(LINGER_S + ANSWER_S, leave_it) or mine))

    def notice(self) -> Notice | None:
        """What another rank has left, as far as the store can still be asked."""
        return call_with_timeout(ANSWER_S, self._read)

    def quiet(self) -> None:
        """Follows no notices from here on."""
        self._stop.set()

    def part(self) -> None:
        """For the end of a run that went well: the rank that serves the store waits for the others to come here."""
        self._stop.set()
        call_with_timeout(FAREWELL_S + ANSWER_S, lambda: self._meet(BYE, FAREWELL_S))

    def _listen(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                notice = self._read()
            except RuntimeError as error:  # DistNetworkError and DistStoreError are
                if not self._stop.is_set():
                    self.on_loss(str(error).splitlines()[0])
                return
            if notice is not None and not self._stop.is_set():
                print(f"{notice}: this rank leaves", file=sys.stderr, flush=True)
                with suppress(RuntimeError):
                    self._meet(READ, LINGER_S)
                call_with_timeout(ANSWER_S, partial(self.on_notice, notice))
                exit_now(notice.code)

    def _read(self) -> Notice | None:
        return Notice(**json.loads(self._store.get(NOTICE))) if self._store.check([NOTICE]) else None

    def _meet(self, key: str, longest_s: float) -> None:
        """Counts this rank; where it serves the store, waits until all are counted."""
        until = time.monotonic() + longest_s
        count = self._store.add(key, 1)
        while self._serves and count < self._world_size and time.monotonic() < until:
            time.sleep(0.02)
            count = self._store.add(key, 0)


_peers: Peers | None = None


def join(store: Store, rank: int, world_size: int, host: str, *, serves: bool) -> None:
    """Begins to listen to the other ranks, and to be heard by them. See Peers."""
    global _peers
    if world_size > 1:
        _peers = Peers(store, rank, world_size, host, serves=serves)


def current() -> Peers | None:
    """The other ranks, while there are any."""
    return _peers


def part() -> None:
    """The run is over, and all went well."""
    global _peers
    if _peers is not None:
        _peers.part()
    _peers = None


def exit_with_peers(reason: str, code: int) -> NoReturn:
    """Tells the other ranks why this one leaves, and leaves at once: with the exit code of whoever was first."""
    if _peers is not None:
        notice = _peers.tell(reason, code)
        if notice.reason != reason:
            print(f"{notice}, before this rank did", file=sys.stderr, flush=True)
        code = notice.code
    exit_now(code)


def _lost(cause: str) -> NoReturn:
    print(f"rank 0 is gone without a word ({cause}): this rank leaves", file=sys.stderr, flush=True)
    exit_now(EXIT_REQUEUE)
