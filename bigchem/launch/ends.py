"""How the ranks of a job leave when something ends the run early: each end says why, and has its exit code.

What the ends are, and which is started again, is in train/lifecycle.py.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bigchem.errors import UserError
from bigchem.launch import owner
from bigchem.launch.roll import AbsentError
from bigchem.train.checkpoint import latest
from bigchem.train.clock import is_limit_signal
from bigchem.train.leave import code_after, leave
from bigchem.train.lifecycle import EXIT_AGAIN, EXIT_MISTAKE, EXIT_STOPPED, End, State, Writer, has_left_word
from bigchem.train.ownership import Claim
from bigchem.train.state import move, read_state

if TYPE_CHECKING:
    from bigchem.train.watchdog import Requeue

WORD_S = 1.0
"""That a rank which lost another waits for its word: the one that failed writes why before it goes."""


def failed(claim: Claim, rank: int, error: BaseException) -> End:
    """Records a failure, unless another rank has, or the run is another attempt's; how this attempt ends."""
    if not claim.holds():
        return End.DISOWNED
    how = End.MISTAKE if isinstance(error, UserError) else End.ERROR
    with suppress(OSError):  # a full disk must not hide the first error
        claim.end(Writer.ANY_RANK, how, reason_of(error), rank=rank)
    if rank == 0:
        owner.release(claim)
    return how


def interrupted(claim: Claim, rank: int) -> NoReturn:
    """Leaves at once for a person: nothing is saved."""
    if rank == 0:
        with suppress(OSError):
            claim.end(Writer.RANK_0, End.STOPPED)
        owner.release(claim)
        newest = latest(claim.run_dir / "checkpoints")
        print(f"interrupted: nothing saved, the last checkpoint is {'none' if newest is None else newest.name}")
    leave(EXIT_STOPPED)


def unmet(claim: Claim, rank: int, error: AbsentError, requeue: Requeue) -> NoReturn:
    """Leaves, for the job to be started again, as not all ranks have come."""
    print(f"{error}: the run ends, to be started again", file=sys.stderr)
    time.sleep(WORD_S * (1 + min(rank, 9) / 10) if rank else 0)  # rank 0 first, if it is there; one tells the launcher
    if error.lead and claim.holds():
        with suppress(OSError):
            # What state.json says may be the word of an earlier attempt.
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
            claim.end(Writer.ANY_RANK, End.ABSENT_RANK, str(error), rank=rank)
    leave(requeue(error.lead))


def bereft(claim: Claim, rank: int, words: str, requeue: Requeue, *, begun: bool) -> NoReturn:
    """Leaves, for the job to be started again, as another rank is gone; unless that one has left word why. begun: this
    attempt's state is in state.json; else it is the word of an earlier one."""
    from bigchem.train import events

    time.sleep(WORD_S * (1 + min(rank, 9) / 10))
    before = read_state(claim.run_dir)
    told = f"rank {rank} lost its connection to another rank after step {before.get('step', 0)} ({words})"
    if not claim.holds():
        print(f"{told}: the run is another attempt's", file=sys.stderr)
        leave(EXIT_MISTAKE)
    if begun and has_left_word(before):
        print(f"{told}: the run has {before['state']}: {before.get('reason', 'by a person')}", file=sys.stderr)
        leave(code_after(before, requeue))
    reason = f"{told}, which is gone without a word"
    print(f"{reason}: the run ends, to be started again", file=sys.stderr)
    with suppress(OSError):
        if not begun:
            move(claim.run_dir, Writer.STARTER, State.PREPARED)
        claim.end(Writer.ANY_RANK, End.LOST_RANK, reason, rank=rank)
        step = int(before.get("step", 0))
        events.record(claim.run_dir, step, "lost rank", "the run ends, to be started again", told)
    leave(requeue(True))


def make_way_unless_training(run_dir: Path, rank: int) -> None:
    """What a signal does before and after training, which has handlers of its own: the job ends at once, and is started
    again. Only rank 0 does so: the others end with it."""

    def make_way(number: int, frame: object) -> None:
        if rank == 0:
            before, name = read_state(run_dir), signal.Signals(number).name
            if before["state"] in (State.FAILED, State.FINISHED):  # srun ends all ranks when one has failed
                leave(code_after(before, lambda lead: EXIT_AGAIN))
            how = End.TIME_LIMIT if is_limit_signal(os.environ, time.time()) else End.PREEMPTED
            owner.of_job(run_dir, os.environ).end(Writer.RANK_0, how, name)
            leave(EXIT_AGAIN)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, make_way)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    return str(error).replace("\n", "; ") if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
