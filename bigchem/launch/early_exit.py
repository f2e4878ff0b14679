"""How ranks exit when something ends the run early: each end records its reason and has its own exit code.

run/lifecycle.py lists the ends, and which of them are restarted.
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
from bigchem.run.log_files import record_event
from bigchem.run.ownership import Claim
from bigchem.run.state import move, read_state
from bigchem.train.checkpoint.store import latest
from bigchem.train.health import peers
from bigchem.train.health.time_limit import is_limit_signal

if TYPE_CHECKING:
    from bigchem.train.health.watchdog import Requeue

REASON_S = 1.0
"""How long a rank that lost another waits for its reason: a failing rank records it before it exits."""
_exit_lock = threading.Lock()
"""Held by the thread that exits because a rank is lost: the main thread and the listening one may both notice."""


@contextmanager
def exit_together(record: Callable[[BaseException], object] = lambda error: None) -> Iterator[None]:
    """Wraps what a rank does while the process group is up. On an error the process reports it, notifies the other
    ranks, and exits at once with the exit code of its end: the others may be in a collective operation, and destroying
    the group would wait for them. record: called with the error before that."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # failing to record an error must not replace it
            record(error)
        stopped = isinstance(error, KeyboardInterrupt)
        exit_on_error(error, End.STOPPED if stopped else End.MISTAKE if is_user_error(error) else End.ERROR)


def exit_on_error(error: BaseException, how: End) -> NoReturn:
    """Reports why this rank exits, and exits: see `exit_together`."""
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
    """Whether the user can fix it."""
    return isinstance(error, UserError) or full_disk(error) is not None


def record_failure(claim: Claim, rank: int, error: BaseException) -> End:
    """Records a failure, unless another rank has or the run is another attempt's; returns how this attempt ends."""
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
    """Records on rank 0 why another rank ends the run. That rank has done so too, but a progress update by rank 0 may
    have overwritten it."""
    how = {exit_code(e): e for e in (End.MISTAKE, End.ERROR, End.LOST_RANK)}.get(notice.code)
    if how is not None:
        claim.end(Writer.ANY_RANK, how, notice.reason, rank=notice.rank)


def exit_interrupted(claim: Claim, rank: int) -> NoReturn:
    """Exits at once when the user interrupts: nothing is saved."""
    if rank == 0:
        with suppress(OSError):
            claim.end(Writer.RANK_0, End.STOPPED)
        owner.release(claim)
        newest = latest(claim.run_dir / "checkpoints")
        print(f"interrupted: nothing saved, the last checkpoint is {'none' if newest is None else newest.name}")
    peers.exit_with_peers("interrupted by the user", EXIT_STOPPED)


def exit_absent_rank(claim: Claim, rank: int, error: AbsentRankError, requeue: Requeue) -> NoReturn:
    """Exits for a restart because not all ranks came."""
    print(f"{error}: the run exits to be restarted", file=sys.stderr)
    time.sleep(REASON_S * (1 + min(rank, 9) / 10) if rank else 0)  # rank 0 first: one rank tells the launcher
    if error.lead and claim.holds():
        with suppress(OSError):
            # state.json may describe an earlier attempt.
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
            claim.end(Writer.ANY_RANK, End.ABSENT_RANK, str(error), rank=rank)
    exit_now(requeue(error.lead))


def exit_lost_rank(claim: Claim, rank: int, cause: str, requeue: Requeue, *, begun: bool) -> NoReturn:
    """Exits for a restart because another rank is gone, unless that rank recorded why. begun: state.json describes this
    attempt, not an earlier one."""
    _exit_lock.acquire()  # for good
    try:
        _report_lost_rank(claim, rank, cause, requeue, begun=begun)
    except Exception:  # a file system error: a thread waiting for the lock must not wait indefinitely
        traceback.print_exc()
    exit_now(EXIT_REQUEUE)


def _report_lost_rank(claim: Claim, rank: int, cause: str, requeue: Requeue, *, begun: bool) -> None:

    time.sleep(REASON_S * (1 + min(rank, 9) / 10))  # a notice that arrives meanwhile ends this process
    before = read_state(claim.run_dir)
    message = f"rank {rank} lost its connection to another rank after step {before.get('step', 0)} ({cause})"
    if not claim.holds():
        print(f"{message}: the run is another attempt's", file=sys.stderr)
        exit_now(EXIT_USER_ERROR)
    if begun and has_ended(before):
        print(f"{message}: the run has {before['state']}: {before.get('reason', 'by the user')}", file=sys.stderr)
        exit_now(exit_code_after(before, requeue))
    reason = f"{message}, which gave no reason"
    print(f"{reason}: the run exits to be restarted", file=sys.stderr)
    with suppress(OSError):
        if not begun:
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
        claim.end(Writer.ANY_RANK, End.LOST_RANK, reason, rank=rank)
        step = int(before.get("step", 0))
        record_event(claim.run_dir, step, "lost rank", "the run exits to be restarted", message)
    peers.exit_with_peers(reason, requeue(True))


def exit_on_signal_unless_training(run_dir: Path, rank: int) -> None:
    """Handles signals before and after training, which has its own handlers: the job exits at once and is restarted.
    Only rank 0 acts: the others end with it."""

    def on_signal(number: int, frame: object) -> None:
        if rank == 0:
            before, name = read_state(run_dir), signal.Signals(number).name
            if before["state"] in (State.FAILED, State.FINISHED):  # srun ends all ranks when one has failed
                exit_now(exit_code_after(before, lambda lead: EXIT_REQUEUE))
            how = End.TIME_LIMIT if is_limit_signal(os.environ, time.time()) else End.PREEMPTED
            with suppress(OSError):
                owner.of_job(run_dir, os.environ).end(Writer.RANK_0, how, name)
            peers.exit_with_peers(f"{name}: to be restarted", EXIT_REQUEUE)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, on_signal)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    cause = full_disk(error) or error
    return str(cause).replace("\n", "; ") if isinstance(cause, UserError) else f"{type(error).__name__}: {error}"
