"""What decides whether two trained models are comparable, as results.json records it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.model.flops import training_flops
from bigchem.model.presets import Shape
from bigchem.run.state import read_state


def training_record(config: RunConfig, run_dir: Path, model: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """The run's length, data, optimizer and place in its sweep, as JSON data.

    model: `step` and `tokens` of the evaluated model, which are fewer than the run's if it is of the best checkpoint.
    Its examples and tokens by task, and its operations, are counted along the plan of the data.
    """
    state = read_state(run_dir)
    return {
        "steps": config.train.steps,
        "steps_done": state.get("step"),
        "early": state.get("early"),
        "global_tokens": config.data.global_tokens,
        **_consumed(config, int(model["step"]), int(model["tokens"]), shape),
        "lr": config.optimizer.lr,
        "schedule": config.schedule.model_dump(mode="json"),
        "optimizer": config.optimizer.kind,
        "dropout": config.model.dropout,
        "init_from": config.model.init_from,
        "sweep": None if config.sweep.name is None else config.sweep.model_dump(mode="json"),
    }


def _consumed(config: RunConfig, steps: int, tokens: int, shape: Shape) -> dict[str, Any]:
    """Examples and tokens by task, and operations of forward and backward passes, of the first `steps` steps. None if
    the training data are not here, or are not those of which the run counted `tokens`."""
    unknown = {"examples": None, "tokens": None, "flops": None}
    try:
        plan = Plan(open_data(config.data), config.data, config.seed)
        examples, counted, flops = Counter[str](), Counter[str](), 0.0
        for _, task_ids, lengths in plan.steps.blocks(steps):
            flops += training_flops(shape, *lengths.T)
            for task in np.unique(task_ids).tolist():
                of_task = task_ids == task
                examples[plan.tasks[task].name] += int(np.count_nonzero(of_task))
                counted[plan.tasks[task].name] += int(lengths[of_task].sum())
    except (UserError, OSError):
        return unknown
    if counted.total() != tokens:
        return unknown
    return {"examples": dict(examples), "tokens": dict(counted), "flops": flops}
