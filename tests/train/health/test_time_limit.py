from __future__ import annotations

import pytest

from bigchem.base.errors import UserError
from bigchem.train.health.time_limit import MARGIN_S, TimeLimit, end_moves, job_end, validations


def test_a_job_without_an_end_is_never_late() -> None:
    clock = TimeLimit(None, 0.0)
    clock.step_took(1e6)
    assert clock.late(1e12) is None


def test_a_run_stops_while_twice_a_save_a_slow_step_and_the_margin_are_left() -> None:
    clock = TimeLimit(1000.0, 0.0)
    clock.save_s = 100.0
    for seconds in (3.0, 40.0, 5.0):
        clock.step_took(seconds)
    needed = 200 + 40 + MARGIN_S
    assert clock.late(1000 - needed) is None
    reason = clock.late(1000 - needed + 1)
    assert str(reason).startswith("254 s are left")
    clock.save_s = 0.1
    assert clock.late(1000 - needed + 2) == reason


def test_a_validation_that_comes_before_the_save_must_fit_as_well() -> None:
    clock = TimeLimit(1000.0, 0.0)
    clock.save_s, clock.validation_s = 100.0, 22.0
    clock.step_took(1.0)
    without = clock.needed()
    clock.validations = 2
    assert clock.needed() == without + 44
    assert clock.late(1000 - without - 43)


def test_validations_are_those_after_the_step_under_way_and_the_next() -> None:
    assert [validations(step, 3, 8) for step in range(1, 9)] == [0, 1, 1, 0, 1, 1, 1, 1]
    assert [validations(step, 1, 3) for step in (1, 2, 3)] == [2, 2, 1]
    assert validations(3, 0, 3) == 0


def test_a_short_job_does_not_stop_before_it_has_begun() -> None:
    assert TimeLimit(120.0, 0.0).late(0.0) is None


def test_a_slow_step_of_long_ago_is_forgotten() -> None:
    clock = TimeLimit(1000.0, 0.0)
    clock.step_took(500.0)
    before = clock.needed()
    for _ in range(20):
        clock.step_took(1.0)
    assert clock.needed() == before - 499


def test_the_end_of_the_job_is_ours_before_slurms() -> None:
    assert job_end({}, 5.0) is None
    assert job_end({"SLURM_JOB_END_TIME": "1700000000"}, 5.0) == 1.7e9
    assert job_end({"SLURM_JOB_END_TIME": "1700000000", "BIGCHEM_JOB_END": "5.5"}, 5.0) == 5.5
    with pytest.raises(UserError, match="SLURM_JOB_END_TIME"):
        job_end({"SLURM_JOB_END_TIME": "soon"}, 5.0)
    with pytest.raises(UserError, match=r"BIGCHEM_JOB_END = 1000 is 9 s ago"):
        job_end({"BIGCHEM_JOB_END": "1000"}, 1009.0)


def test_slurm_gives_back_the_time_of_a_suspension_and_a_person_may_not() -> None:
    for moves in (True, False):
        clock = TimeLimit(1000.0, 0.0, moves=moves)
        assert clock.late(500.0) is None
        assert (clock.late(995.0, stopped_s=400.0) is None) == moves
    assert end_moves({"SLURM_JOB_END_TIME": "5"})
    assert not end_moves({"SLURM_JOB_END_TIME": "5", "BIGCHEM_JOB_END": "4"})
