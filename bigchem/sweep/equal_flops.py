"""Steps that cost a given number of training FLOPs, counted along the plan of the data."""

import json
from dataclasses import dataclass, field

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, flops_cost, open_data
from bigchem.data.text.tokenizer import Tokenizer

SAMPLE = 200
"""Steps along which FLOPs are counted."""
BACKWARD_TOO = 3
"""Operations of a step over those of its forward pass (bigchem/model/flops.py)."""


@dataclass
class StepCost:
    """Training FLOPs of a step, by run. Runs that differ in fields that do not matter are counted once."""

    where: str
    _known: dict[str, float] = field(default_factory=dict)

    def steps(self, run: RunConfig, flops: float) -> int:
        """The whole number of the run's steps whose cost is nearest to `flops`. UserError if the data are not there, or
        for less than one step."""
        key = json.dumps([run.data.model_dump(mode="json"), run.model.model_dump(mode="json")])
        if key not in self._known:
            self._known[key] = self._of_a_step(run)
        steps = round(flops / self._known[key])
        if steps < 1:
            what = f"flops = {flops:g} is less than a step, {self._known[key]:.3g}"
            raise UserError(what, f"{self.where}: {run.name}", "lower data.global_tokens, or raise flops")
        return steps

    def _of_a_step(self, run: RunConfig) -> float:
        try:
            data = open_data(run.data)
            plan = Plan(data, run.data, run.seed)
            cost = flops_cost(run.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
        except (UserError, OSError) as error:
            why = error.what if isinstance(error, UserError) else error.strerror
            what = f"`flops` is counted along the data in {run.data.path}: {why}"
            raise UserError(what, self.where, "build them first, or set train.steps instead") from None
        forward = sum(float(cost(lengths).sum()) for _, _, lengths in plan.steps.blocks(SAMPLE))
        return BACKWARD_TOO * forward / SAMPLE
