"""How the ranks of a job leave when something ends the run early: each end says why, and has its exit code.

What the ends are, and which is started again, is in run/lifecycle.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigchem.base.errors import UserError, full_disk
from bigchem.launch.rendezvous.members import AbsentRankError
from bigchem.launch.runs import owner
from bigchem.run import notify
from bigchem.run.exit_codes import exit_code_after, exit_now
from bigchem.run.lifecycle import EXIT_REQUEUE, EXIT_STOPPED, EXIT_USER_ERROR, End, State, Writer, exit_code, has_ended
from bigchem.run.ownership import Claim
from bigchem.run.state import move, read_state
from bigchem.train.checkpoint.store import latest
from bigchem.train.health import peers
from bigchem.train.health.time_limit import is_limit_signal

if TYPE_CHECKING:
    from bigchem.train.health.watchdog import Requeue

WORD_S = 1.0
"""That a rank which lost another waits for its word: the one that failed writes why before it goes."""
_one = threading.Lock()
"""Held by the thread that leaves as a rank is lost: the main one and the one that listens may both find it."""


@contextmanager
def exit_together(record: Callable[[BaseException], object] = lambda error: None) -> Iterator[None]:
    """For what a rank does while the process group is up. Where it fails, the process says why, tells the other ranks,
    and leaves at once with the exit code of its end: they may stand in a collective operation, and taking the group
    down would wait for them. record: the error, where somebody looks for it."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # what is written of an error does not replace it
            record(error)
        stopped = isinstance(error, KeyboardInterrupt)
        exit_on_error(error, End.STOPPED if stopped else End.MISTAKE if is_user_error(error) else End.ERROR)


def exit_on_error(error: BaseException, how: End) -> NoReturn:
    """Says why this rank leaves, and leaves: see `together`."""
    code = exit_code(how)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    elif is_user_error(error):
        print(f"error: {full_disk(error) or error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
        if sys.stderr is not sys.__stderr__:  # the terminal, or the launcher's log: where the traceback is
            print(f"{reason_of(error)}; see logs/ in the run folder", file=sys.__stderr__, flush=True)
    peers.exit_with_peers(reason_of(error), code)


def is_user_error(error: BaseException) -> bool:
    """Whether a user can mend it."""
    return isinstance(error, UserError) or full_disk(error) is not None


def record_failure(claim: Claim, rank: int, error: BaseException) -> End:
    """Records a failure, unless another rank has, or the run is another attempt's; how this attempt ends."""
    if not claim.holds():
        return End.DISOWNED
    how = End.MISTAKE if is_user_error(error) else End.ERROR
    with suppress(OSError):  # a full disk must not hide the first error
        if claim.end(Writer.ANY_RANK, how, reason_of(error), rank=rank):
            notify.send_from_rank(claim.run_dir)
    if rank == 0:
        owner.release(claim)
    return how


def record_notice(claim: Claim, notice: peers.Notice) -> None:
    """Records why another rank ends the run, on rank 0: that rank has, but a row of progress that rank 0 was about to
    write may have replaced its word."""
    how = {exit_code(e): e for e in (End.MISTAKE, End.ERROR, End.LOST_RANK)}.get(notice.code)
    if how is not None:
        claim.end(Writer.ANY_RANK, how, notice.reason, rank=notice.rank)


def exit_interrupted(claim: Claim, rank: int) -> NoReturn:
    """Leaves at once for a person: nothing is saved."""
    if rank == 0:
        with suppress(OSError):
            claim.end(Writer.RANK_0, End.STOPPED)
        owner.release(claim)
        newest = latest(claim.run_dir / "checkpoints")
        print(f"interrupted: nothing saved, the last checkpoint is {'none' if newest is None else newest.name}")
    peers.exit_with_peers("interrupted by a person", EXIT_STOPPED)


def exit_absent_rank(claim: Claim, rank: int, error: AbsentRankError, requeue: Requeue) -> NoReturn:
    """Leaves, for the job to be started again, as not all ranks have come."""
    print(f"{error}: the run ends, to be started again", file=sys.stderr)
    time.sleep(WORD_S * (1 + min(rank, 9) / 10) if rank else 0)  # rank 0 first, if it is there; one tells the launcher
    if error.lead and claim.holds():
        with suppress(OSError):
            # What state.json says may be the word of an earlier attempt.
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
            claim.end(Writer.ANY_RANK, End.ABSENT_RANK, str(error), rank=rank)
    exit_now(requeue(error.lead))


def exit_lost_rank(claim: Claim, rank: int, words: str, requeue: Requeue, *, begun: bool) -> NoReturn:
    """Leaves, for the job to be started again, as another rank is gone; unless that one has left word why. begun: this
    attempt's state is in state.json; else it is the word of an earlier one."""
    _one.acquire()  # for good
    try:
        _say_what_is_lost(claim, rank, words, requeue, begun=begun)
    except Exception:  # a file system that errs: whoever waits for the lock must not wait for ever
        traceback.print_exc()
    exit_now(EXIT_REQUEUE)


def _say_what_is_lost(claim: Claim, rank: int, words: str, requeue: Requeue, *, begun: bool) -> None:
    from bigchem.train.health import events

    time.sleep(WORD_S * (1 + min(rank, 9) / 10))  # a notice that comes meanwhile ends this process
    before = read_state(claim.run_dir)
    told = f"rank {rank} lost its connection to another rank after step {before.get('step', 0)} ({words})"
    if not claim.holds():
        print(f"{told}: the run is another attempt's", file=sys.stderr)
        exit_now(EXIT_USER_ERROR)
    if begun and has_ended(before):
        print(f"{told}: the run has {before['state']}: {before.get('reason', 'by a person')}", file=sys.stderr)
        exit_now(exit_code_after(before, requeue))
    reason = f"{told}, which is gone without a word"
    print(f"{reason}: the run ends, to be started again", file=sys.stderr)
    with suppress(OSError):
        if not begun:
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
        claim.end(Writer.ANY_RANK, End.LOST_RANK, reason, rank=rank)
        step = int(before.get("step", 0))
        events.record(claim.run_dir, step, "lost rank", "the run ends, to be started again", told)
    peers.exit_with_peers(reason, requeue(True))


def exit_on_signal_unless_training(run_dir: Path, rank: int) -> None:
    """What a signal does before and after training, which has handlers of its own: the job ends at once, and is started
    again. Only rank 0 does so: the others end with it."""

    def make_way(number: int, frame: object) -> None:
        if rank == 0:
            before, name = read_state(run_dir), signal.Signals(number).name
            if before["state"] in (State.FAILED, State.FINISHED):  # srun ends all ranks when one has failed
                exit_now(exit_code_after(before, lambda lead: EXIT_REQUEUE))
            how = End.TIME_LIMIT if is_limit_signal(os.environ, time.time()) else End.PREEMPTED
            with suppress(OSError):
                owner.of_job(run_dir, os.environ).end(Writer.RANK_0, how, name)
            peers.exit_with_peers(f"{name}: to be started again", EXIT_REQUEUE)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, make_way)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    told = full_disk(error) or error
    return str(told).replace("\n", "; ") if isinstance(told, UserError) else f"{type(error).__name__}: {error}"
