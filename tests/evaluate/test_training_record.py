from __future__ import annotations

from pathlib import Path

import numpy as np

from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.evaluate.training_record import training_record
from bigchem.model.flops import training_flops
from bigchem.model.presets import shape
from bigchem.run.state import write_state

TABLE = {
    "data": {"global_tokens": 1500, "micro_tokens": 600, "max_source_tokens": 300, "max_target_tokens": 300},
    "train": {"steps": 200},
    "seed": 3,
}
SHAPE = shape("sweep-0.2m")


def config_of(data: Path, mixture: dict[str, float]) -> RunConfig:
    return RunConfig.model_validate({**TABLE, "data": {**TABLE["data"], "path": str(data), "mixture": mixture}})


def test_what_a_run_consumed_is_what_its_steps_hold(small_data: Path, tmp_path: Path) -> None:
    config = config_of(small_data, {"captioning": 1.0, "forward": 2.0})
    plan = Plan(open_data(config.data), config.data, config.seed)
    position, examples, tokens, flops = 0, dict.fromkeys(plan.tasks, 0), dict.fromkeys(plan.tasks, 0), 0.0
    for _ in range(7):
        step = plan.steps.at(position)
        position, flops = step.stop, flops + training_flops(SHAPE, *step.lengths.T)
        for task in plan.tasks:
            examples[task] += int(np.count_nonzero(step.task_ids == task))
            tokens[task] += int(step.lengths[step.task_ids == task].sum())
    write_state(tmp_path, "trained", step=9, steps=200, early="no new best")
    found = training_record(config, tmp_path, {"step": 7, "tokens": sum(tokens.values())}, SHAPE)
    names = {plan.tasks[task].name: task for task in plan.tasks}
    assert found["examples"] == {name: examples[task] for name, task in names.items()}
    assert found["tokens"] == {name: tokens[task] for name, task in names.items()}
    assert found["flops"] == flops
    assert (found["steps"], found["steps_done"], found["early"]) == (200, 9, "no new best")


def test_what_other_data_would_give_is_not_recorded(small_data: Path, tmp_path: Path) -> None:
    config = config_of(small_data, {"captioning": 1.0})
    counted_elsewhere = {"step": 7, "tokens": 12345}
    assert training_record(config, tmp_path, counted_elsewhere, SHAPE)["tokens"] is None
    gone = config.model_copy(update={"data": config.data.model_copy(update={"path": str(tmp_path / "gone")})})
    assert training_record(gone, tmp_path, counted_elsewhere, SHAPE)["examples"] is None
