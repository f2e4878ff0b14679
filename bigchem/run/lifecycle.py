"""The states of a run, how an attempt at it can end, and what `bigchem status` shows: one table. Pure.

A run folder's state.json holds what the run itself last said. An attempt is one start of its processes; its end decides
the state that it leaves, the exit code, and whether the run is started again. Everything else asks this module:
training and its watchdog, the batch script, submission, `status` and the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What state.json can say."""

    NEW = "new"  # there is no state.json
    PREPARED = "prepared"  # the run has a folder
    RUNNING = "running"
    TRAINED = "trained"  # its last step is done; it is not evaluated, or not yet
    FINISHED = "finished"
    STOPPED = "stopped"  # a checkpoint was saved
    FAILED = "failed"


class End(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    TRAINED = "trained"
    STOPPED = "stopped"  # by a person
    PREEMPTED = "preempted"  # by a signal of the cluster
    TIME_LIMIT = "time limit"
    LOST_RANK = "lost rank"  # a peer went without a word
    ABSENT_RANK = "absent rank"  # a peer did not come to the rendezvous
    HUNG = "hung"
    KILLED = "killed"  # its processes died without a word, and the batch script outlived them
    VANISHED = "vanished"  # so did the job: a node went, or Slurm took it without a signal
    NOT_LAUNCHED = "not launched"  # srun, or a line of `setup`, failed before any rank began
    MISTAKE = "mistake"  # a UserError
    ERROR = "error"  # anything else
    DISOWNED = "disowned"  # another job took the run over, or its folder was removed


@dataclass(frozen=True)
class Rule:
    """What follows from an end.

    state: that it leaves; None: the attempt may write nothing. code: exit code of every rank; None: it has none of its
    own. again: the run is started again by itself. counts: it counts when a run fails at the same step again and again.
    """

    state: State | None
    code: int | None
    again: bool = False
    counts: bool = False


ENDS: Mapping[End, Rule] = {
    End.FINISHED: Rule(State.FINISHED, 0),
    End.TRAINED: Rule(State.TRAINED, 0),
    End.ERROR: Rule(State.FAILED, 1),
    End.MISTAKE: Rule(State.FAILED, 2),
    End.DISOWNED: Rule(None, 2),
    End.STOPPED: Rule(State.STOPPED, 3),
    End.PREEMPTED: Rule(State.STOPPED, 75, again=True),
    End.TIME_LIMIT: Rule(State.STOPPED, 75, again=True),
    End.LOST_RANK: Rule(State.FAILED, 75, again=True, counts=True),
    End.ABSENT_RANK: Rule(State.FAILED, 75, again=True, counts=True),
    End.HUNG: Rule(State.FAILED, 75, again=True, counts=True),
    End.KILLED: Rule(State.FAILED, None, again=True, counts=True),
    End.VANISHED: Rule(State.FAILED, None, again=True),
    End.NOT_LAUNCHED: Rule(State.FAILED, None),
}
"""75 is EX_TEMPFAIL of sysexits.h: start the run again, and it goes on from its last checkpoint."""

EXIT_USER_ERROR, EXIT_STOPPED, EXIT_REQUEUE = 2, 3, 75


class Writer(StrEnum):
    """Who writes state.json."""

    STARTER = "starter"  # submit, resume, train: before an attempt
    RANK_0 = "rank 0"
    ANY_RANK = "any rank"  # the first one that fails knows why
    BATCH = "batch script"  # after srun
    EVALUATION = "evaluation"  # a job of its own


_STARTER, _RANK_0 = frozenset({Writer.STARTER}), frozenset({Writer.RANK_0})
_RANKS, _BATCH = frozenset({Writer.RANK_0, Writer.ANY_RANK}), frozenset({Writer.BATCH})

MOVES: Mapping[tuple[State, State], frozenset[Writer]] = {
    **{(before, State.PREPARED): _STARTER | _RANK_0 for before in State},  # rank 0: an attempt begins
    (State.PREPARED, State.RUNNING): _RANK_0,
    (State.RUNNING, State.RUNNING): _RANK_0,
    (State.TRAINED, State.RUNNING): _RANK_0,  # resumed with more steps in the same attempt's folder
    (State.PREPARED, State.TRAINED): _RANK_0,
    (State.RUNNING, State.TRAINED): _RANK_0,
    (State.TRAINED, State.TRAINED): frozenset({Writer.EVALUATION}),  # why it could not be evaluated
    (State.TRAINED, State.FINISHED): frozenset({Writer.RANK_0, Writer.EVALUATION}),
    (State.NEW, State.STOPPED): _RANK_0,
    (State.PREPARED, State.STOPPED): _RANK_0,
    (State.RUNNING, State.STOPPED): _RANK_0 | _BATCH,
    (State.TRAINED, State.STOPPED): _RANK_0,  # interrupted while it was evaluated
    (State.STOPPED, State.STOPPED): _RANK_0 | _BATCH,  # why it is not started again
    (State.NEW, State.FAILED): _RANKS | _BATCH,
    (State.PREPARED, State.FAILED): _RANKS | _BATCH,
    (State.RUNNING, State.FAILED): _RANKS | _BATCH,
    (State.TRAINED, State.FAILED): _RANKS | _BATCH,
    (State.STOPPED, State.FAILED): _BATCH,
    (State.FAILED, State.FAILED): _BATCH,
}
"""From one state to another: who may write it. What is not listed may not happen: a rank that loses its peers does not
hide the reason of the one that failed first."""


def may_write(writer: Writer, before: State, after: State) -> bool:
    """Whether a writer may replace one state by another."""
    return writer in MOVES.get((before, after), ())


def end_of(state: Mapping[str, Any]) -> End | None:
    """The end that state.json records; None where the attempt has not ended, or left no word."""
    return End(state["end"]) if "end" in state else None


def is_restarted(state: Mapping[str, Any]) -> bool:
    """Whether the run is started again by itself after what state.json says."""
    end = end_of(state)
    return end is not None and ENDS[end].again and not state.get("given_up")


def has_ended(state: Mapping[str, Any]) -> bool:
    """Whether a rank of this attempt has said how it ends: its peers need not, and follow it."""
    return state["state"] in (State.FAILED, State.STOPPED, State.FINISHED)


def exit_code(end: End) -> int:
    """Exit code of a rank whose attempt ends so; 1 where the end has none of its own."""
    code = ENDS[end].code
    return 1 if code is None else code


class Job(StrEnum):
    """What is known of the job, or process, that owns a run."""

    NONE = "none"  # the run has none
    WAITS = "waits"
    RUNS = "runs"
    GONE = "gone"
    UNKNOWN = "unknown"  # it cannot be asked just now


SHOWN: Mapping[Job, Mapping[State, str]] = {
    Job.WAITS: dict.fromkeys(State, "queued"),
    Job.RUNS: {
        State.NEW: "starting",
        State.PREPARED: "starting",
        State.RUNNING: "running",
        State.TRAINED: "evaluating",
        State.STOPPED: "stopping",
        State.FAILED: "failed",
    },
    Job.GONE: {State.PREPARED: "lost", State.RUNNING: "lost"},
    Job.NONE: {State.RUNNING: "lost"},
    Job.UNKNOWN: {},
}
"""What is shown, by the job and what the run last said; where nothing stands, what it last said."""


def shown(state: Mapping[str, Any], job: Job, *, cancelled: bool = False) -> str:
    """The state that `bigchem status` shows: what the run last said and what becomes of its job, together.

    cancelled: a person has cancelled this very job.
    """
    said = State(state["state"])
    if said is State.FINISHED:
        return said
    if job is Job.RUNS and (said is not State.FAILED or is_restarted(state)):
        if cancelled:
            return "stopping"
        if is_restarted(state):
            return "starting"
    if job in (Job.GONE, Job.NONE) and cancelled and said in (State.PREPARED, State.RUNNING, State.STOPPED):
        return "cancelled"
    return SHOWN[job].get(said, said)


def is_active(state: Mapping[str, Any], job: Job) -> bool | None:
    """Whether the run is on its way, so that it must not be started; None where that cannot be known."""
    said = State(state["state"])
    if said is State.FINISHED or (said is State.FAILED and not is_restarted(state)):
        return False
    return None if job is Job.UNKNOWN else job in (Job.WAITS, Job.RUNS)
