from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import config_of
from small_checkpoints import manifest

from bigchem.base.errors import UserError
from bigchem.config import CheckpointConfig, RunConfig
from bigchem.data.storage.shards import Data
from bigchem.launch.runs.prepare import preflight
from bigchem.tasks import shipped
from bigchem.train.checkpoint.best import Best, best_step, chosen, validated_tasks
from bigchem.train.checkpoint.store import doom_superseded, publish, published, step_name


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=30))
def test_the_best_is_the_first_of_the_lowest_and_since_counts_what_came_after(values: list[float]) -> None:
    best = Best("loss", keep=True)
    for step, value in enumerate(values, start=1):
        best = best.after(step, value)
    numbers = [math.inf if math.isnan(value) else value for value in values]
    lowest = min(numbers)
    if lowest == math.inf:
        assert (best.step, best.since, best.state()) == (0, len(values), {})
    else:
        assert (best.value, best.step) == (lowest, numbers.index(lowest) + 1)
        assert best.since == len(values) - best.step


def test_a_resumed_run_goes_on_with_its_best_unless_another_metric_judges(tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path, "run", validation={"every": 5, "metric": "loss/forward"})
    best = Best.of(config, {}).after(5, 2.0).after(10, 3.0)
    assert Best.of(config, best.state()) == best
    assert Best.of(config_of(tmp_path, tmp_path, "run", validation={"every": 5}), best.state()) == Best("loss", True)
    released = config_of(
        tmp_path, tmp_path, "run", validation={"every": 5, "metric": "loss/forward", "keep_best": False}
    )
    assert Best.of(released, best.state()) == replace(best, keep=False)
    assert (best_step(best.state()), best_step(replace(best, keep=False).state()), best_step({})) == (5, None, None)


def saved(checkpoints: Path, step: int, state: dict[str, object]) -> None:
    partial = checkpoints / (step_name(step) + ".partial")
    partial.mkdir(parents=True)
    publish(checkpoints, partial, replace(manifest(step), state=state))
    doom_superseded(checkpoints, CheckpointConfig(keep=1), best=best_step(state))


def test_the_best_checkpoint_stays_and_stands_for_the_run(tmp_path: Path) -> None:
    best = Best("loss", keep=True)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5), (40, 2.6)):
        best = best.after(step, loss)
        saved(tmp_path, step, best.state())
    assert [p.name for p in published(tmp_path)] == [step_name(20), step_name(40)]
    assert chosen(tmp_path) == tmp_path / step_name(20)
    saved(tmp_path, 50, replace(best, keep=False).state())
    assert [p.name for p in published(tmp_path)] == [step_name(50)]
    assert chosen(tmp_path) == tmp_path / step_name(50)
    assert chosen(tmp_path / "none") is None


def test_what_cannot_be_validated_is_refused_before_the_run(small_data: Path, tmp_path: Path) -> None:
    """small_data has no `valid` split."""

    def config(**validation: object) -> RunConfig:
        return config_of(tmp_path, small_data, "run", validation=validation)

    preflight(config(), 1)
    with pytest.raises(UserError, match=r"no rows of the mixture's tasks in split 'valid'"):
        preflight(config(every=2), 1)
    preflight(config(every=2, split="test", metric="loss/forward"), 1)
    assert validated_tasks(config(split="test"), Data(small_data)) == tuple(shipped().scored)
    with pytest.raises(UserError, match=r"no rows of task 'forwards' in split 'test'"):
        preflight(config(every=2, split="test", metric="loss/forwards"), 1)
    with pytest.raises(UserError, match="patience = 3, but every = 0"):
        config(patience=3)


@pytest.mark.parametrize(
    ("profile", "message"),
    [("3", "write START:STOP"), ("0:2", "write START:STOP"), ("3:2", "START <= STOP"), ("5:7", "STOP <= steps = 6")],
)
def test_a_profile_of_steps_that_are_not_there_is_refused(tmp_path: Path, profile: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(tmp_path, tmp_path, "run", train={"profile": profile})
    assert config_of(tmp_path, tmp_path, "run", train={"profile": "2:6"}).train.profiled == range(2, 7)
