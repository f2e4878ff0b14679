"""Tables of a run's states, of how attempts end, and of what `bigchem status` shows. Pure.

state.json holds the run's last recorded state. An attempt is one start of the run's processes; its end decides the next
state, the exit code, and whether the run is restarted. Training, its watchdog, the batch script, submission, `status`
and the history all use these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """A state in state.json."""

    NEW = "new"  # there is no state.json
    PREPARED = "prepared"  # the run has a folder
    RUNNING = "running"
    TRAINED = "trained"  # the last step is done, but not the evaluation
    FINISHED = "finished"
    STOPPED = "stopped"  # a checkpoint was saved
    FAILED = "failed"


class End(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    TRAINED = "trained"
    STOPPED = "stopped"  # by the user
    PREEMPTED = "preempted"  # by the cluster's signal
    TIME_LIMIT = "time limit"
    LOST_RANK = "lost rank"  # a peer died silently
    ABSENT_RANK = "absent rank"  # a peer missed the rendezvous
    HUNG = "hung"
    KILLED = "killed"  # its processes died silently, and the batch script outlived them
    VANISHED = "vanished"  # the job died too: a node failed, or Slurm ended it without a signal
    NOT_LAUNCHED = "not launched"  # srun, or a line of `setup`, failed before any rank started
    MISTAKE = "mistake"  # a UserError
    ERROR = "error"  # anything else
    DISOWNED = "disowned"  # another job took over the run, or its folder was removed


@dataclass(frozen=True)
class Rule:
    """The consequences of an end.

    state: the state it leaves; None: the attempt may write nothing. code: exit code of every rank; None: no specific
    one. again: the run restarts automatically. counts: it counts as a failure at a step, of which repeats stop the run.
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
"""75 is EX_TEMPFAIL of sysexits.h: restart the run, and it continues from its last checkpoint."""

EXIT_USER_ERROR, EXIT_STOPPED, EXIT_REQUEUE = 2, 3, 75


class Writer(StrEnum):
    """Who writes state.json."""

    STARTER = "starter"  # submit, resume, train: before an attempt
    RANK_0 = "rank 0"
    ANY_RANK = "any rank"  # the first to fail knows why
    BATCH = "batch script"  # after srun
    EVALUATION = "evaluation"  # a separate job


_STARTER, _RANK_0 = frozenset({Writer.STARTER}), frozenset({Writer.RANK_0})
_RANKS, _BATCH = frozenset({Writer.RANK_0, Writer.ANY_RANK}), frozenset({Writer.BATCH})

MOVES: Mapping[tuple[State, State], frozenset[Writer]] = {
    **{(before, State.PREPARED): _STARTER | _RANK_0 for before in State},  # rank 0: an attempt begins
    (State.PREPARED, State.RUNNING): _RANK_0,
    (State.RUNNING, State.RUNNING): _RANK_0,
    (State.TRAINED, State.RUNNING): _RANK_0,  # resumed with more steps
    (State.PREPARED, State.TRAINED): _RANK_0,
    (State.RUNNING, State.TRAINED): _RANK_0,
    (State.TRAINED, State.TRAINED): frozenset({Writer.EVALUATION}),  # records why evaluation failed
    (State.TRAINED, State.FINISHED): frozenset({Writer.RANK_0, Writer.EVALUATION}),
    (State.NEW, State.STOPPED): _RANK_0,
    (State.PREPARED, State.STOPPED): _RANK_0,
    (State.RUNNING, State.STOPPED): _RANK_0 | _BATCH,
    (State.TRAINED, State.STOPPED): _RANK_0,  # interrupted during evaluation
    (State.STOPPED, State.STOPPED): _RANK_0 | _BATCH,  # records why it is not restarted
    (State.NEW, State.FAILED): _RANKS | _BATCH,
    (State.PREPARED, State.FAILED): _RANKS | _BATCH,
    (State.RUNNING, State.FAILED): _RANKS | _BATCH,
    (State.TRAINED, State.FAILED): _RANKS | _BATCH,
    (State.STOPPED, State.FAILED): _BATCH,
    (State.FAILED, State.FAILED): _BATCH,
}
"""(before, after): who may write it. All else is forbidden: a rank that loses its peers must not overwrite the reason
of the first failure."""


def may_write(writer: Writer, before: State, after: State) -> bool:
    """Whether a writer may replace one state with another."""
    return writer in MOVES.get((before, after), ())


def end_of(state: Mapping[str, Any]) -> End | None:
    """The end recorded in state.json; None if the attempt has not ended or left no record."""
    return End(state["end"]) if "end" in state else None


def is_restarted(state: Mapping[str, Any]) -> bool:
    """Whether the run restarts automatically after the end in state.json."""
    end = end_of(state)
    return end is not None and ENDS[end].again and not state.get("given_up")


def has_ended(state: Mapping[str, Any]) -> bool:
    """Whether a rank of this attempt has recorded its end; its peers then follow without a record of their own."""
    return state["state"] in (State.FAILED, State.STOPPED, State.FINISHED)


def exit_code(end: End) -> int:
    """Exit code of a rank for this end; 1 if the end has no specific one."""
    code = ENDS[end].code
    return 1 if code is None else code


class Job(StrEnum):
    """Status of the job, or process, that owns a run."""

    NONE = "none"  # the run has none
    WAITS = "waits"
    RUNS = "runs"
    GONE = "gone"
    UNKNOWN = "unknown"  # it cannot be queried now


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
"""What is shown, by job and recorded state; the default is the recorded state."""


def shown(state: Mapping[str, Any], job: Job, *, cancelled: bool = False, evaluated: bool = True) -> str:
    """The state that `bigchem status` shows, from the recorded state and the job's status.

    cancelled: the user has cancelled this job. evaluated: the run's job, or another, evaluates it; otherwise it is done
    once it is trained, although its job may still be ending.
    """
    recorded = State(state["state"])
    if recorded is State.FINISHED or (recorded is State.TRAINED and job is Job.RUNS and not evaluated):
        return recorded
    if job is Job.RUNS and (recorded is not State.FAILED or is_restarted(state)):
        if cancelled:
            return "stopping"
        if is_restarted(state):
            return "starting"
    if job in (Job.GONE, Job.NONE) and cancelled and recorded in (State.PREPARED, State.RUNNING, State.STOPPED):
        return "cancelled"
    return SHOWN[job].get(recorded, recorded)


def is_active(state: Mapping[str, Any], job: Job) -> bool | None:
    """Whether the run is queued or running, and so must not be started; None if unknown."""
    recorded = State(state["state"])
    if recorded is State.FINISHED or (recorded is State.FAILED and not is_restarted(state)):
        return False
    return None if job is Job.UNKNOWN else job in (Job.WAITS, Job.RUNS)
