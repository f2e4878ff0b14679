"""The tables of a run's states: every transition, every end, every job."""

from __future__ import annotations

from itertools import product

import pytest

from bigchem.run.lifecycle import (
    ENDS,
    End,
    Job,
    State,
    Writer,
    end_of,
    exit_code,
    has_ended,
    is_active,
    is_restarted,
    may_write,
    shown,
)

N, P, R, T, F, S = State.NEW, State.PREPARED, State.RUNNING, State.TRAINED, State.FINISHED, State.STOPPED
X = State.FAILED
ALLOWED = {
    Writer.STARTER: {(before, P) for before in State},
    Writer.RANK_0: {(before, P) for before in State}
    | {(P, R), (R, R), (T, R), (P, T), (R, T), (T, F), (N, S), (P, S), (R, S), (T, S), (S, S)}
    | {(N, X), (P, X), (R, X), (T, X)},
    Writer.ANY_RANK: {(N, X), (P, X), (R, X), (T, X)},
    Writer.BATCH: {(R, S), (S, S), (N, X), (P, X), (R, X), (T, X), (S, X), (X, X)},
    Writer.EVALUATION: {(T, T), (T, F)},
}
"""The same table by writer, written independently."""


@pytest.mark.parametrize("writer", Writer)
def test_a_writer_may_make_just_these_moves(writer: Writer) -> None:
    found = {(before, after) for before, after in product(State, State) if may_write(writer, before, after)}
    assert found == ALLOWED[writer]


def test_the_first_word_of_a_failure_stays() -> None:
    for before in (X, S, F):
        assert not may_write(Writer.ANY_RANK, before, X)
        assert has_ended({"state": before})


def test_every_end_has_its_exit_code() -> None:
    codes = {end: exit_code(end) for end in End}
    assert {end for end, code in codes.items() if code == 0} == {End.FINISHED, End.TRAINED}
    assert {end for end, code in codes.items() if code == 2} == {End.MISTAKE, End.DISOWNED}
    assert {end for end, code in codes.items() if code == 3} == {End.STOPPED}
    again = {End.PREEMPTED, End.TIME_LIMIT, End.LOST_RANK, End.ABSENT_RANK, End.HUNG}
    assert {end for end, code in codes.items() if code == 75} == again


@pytest.mark.parametrize("end", End)
def test_a_run_goes_on_by_itself_after_what_a_machine_did_to_it_unless_it_was_given_up(end: End) -> None:
    machines = {End.PREEMPTED, End.TIME_LIMIT, End.LOST_RANK, End.ABSENT_RANK, End.HUNG, End.KILLED, End.VANISHED}
    state = {"state": ENDS[end].state or "running", "end": str(end)}
    assert end_of(state) is end
    assert is_restarted(state) == (end in machines)
    assert not is_restarted({**state, "given_up": True})


def test_only_ends_that_may_be_the_runs_own_fault_count_against_it() -> None:
    assert {end for end, rule in ENDS.items() if rule.counts} == {End.LOST_RANK, End.ABSENT_RANK, End.HUNG, End.KILLED}


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job.NONE, "new prepared lost trained finished stopped failed"),
        (Job.WAITS, "queued queued queued queued finished queued queued"),
        (Job.RUNS, "starting starting running evaluating finished stopping failed"),
        (Job.GONE, "new lost lost trained finished stopped failed"),
        (Job.UNKNOWN, "new prepared running trained finished stopped failed"),
    ],
)
def test_what_is_shown_of_every_state_with_every_job(job: Job, words: str) -> None:
    assert [shown({"state": recorded}, job) for recorded in (N, P, R, T, F, S, X)] == words.split()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job.NONE, "new cancelled cancelled trained finished cancelled failed"),
        (Job.WAITS, "queued queued queued queued finished queued queued"),
        (Job.RUNS, "stopping stopping stopping stopping finished stopping failed"),
        (Job.GONE, "new cancelled cancelled trained finished cancelled failed"),
        (Job.UNKNOWN, "new prepared running trained finished stopped failed"),
    ],
)
def test_what_is_shown_of_a_cancelled_run(job: Job, words: str) -> None:
    assert [shown({"state": recorded}, job, cancelled=True) for recorded in (N, P, R, T, F, S, X)] == words.split()


def test_a_run_that_is_not_evaluated_is_trained_although_its_job_still_ends() -> None:
    assert shown({"state": T}, Job.RUNS, evaluated=False) == "trained"
    assert shown({"state": T}, Job.WAITS, evaluated=False) == "queued"


@pytest.mark.parametrize("end", [End.PREEMPTED, End.TIME_LIMIT, End.LOST_RANK, End.HUNG, End.KILLED])
def test_between_two_attempts_a_run_is_starting_while_its_job_runs(end: End) -> None:
    state = {"state": ENDS[end].state, "end": end}
    assert shown(state, Job.RUNS) == "starting"
    assert shown(state, Job.RUNS, cancelled=True) == "stopping"
    assert is_active(state, Job.RUNS)
    assert is_active(state, Job.GONE) is False


@pytest.mark.parametrize(("recorded", "job"), list(product(State, Job)))
def test_a_run_is_active_while_its_job_is_unless_it_is_over(recorded: State, job: Job) -> None:
    expected = {Job.NONE: False, Job.WAITS: True, Job.RUNS: True, Job.GONE: False, Job.UNKNOWN: None}[job]
    assert is_active({"state": recorded}, job) is (False if recorded in (F, X) else expected)
