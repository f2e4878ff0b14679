"""Which rows of a plan are tried as short runs, their configurations, and their results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.ds_config import ds_config_for
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.workloads.tune import STEPS, WARM, best_rows, measured, short_run, tune
from bigchem.plan import from_config
from bigchem.plan.choices import Choice, Room, choices
from bigchem.plan.from_config import Planned
from bigchem.plan.speed.step_time import Assumptions


@pytest.fixture
def planned(small_data: Path, tmp_path: Path) -> Planned:
    schedule = {"kind": "wsd", "warmup_steps": 30, "decay_steps": 20}
    notify = {"command": ["mail-me"]}
    config = config_of(tmp_path / "runs", small_data, "mine", schedule=schedule, notify=notify, train={"steps": 100})
    (tmp_path / "mine.toml").write_text(toml.dump(config))
    return from_config.planned(str(tmp_path / "mine.toml"), (), 2)


def rows_of(planned: Planned, room: float = 80e9) -> list[Choice]:
    cluster = from_config.cluster("h100", 2, 1, None)
    return choices(planned.work, planned.tables, [600, 750], cluster, Room(room), Assumptions())


def test_the_fastest_rows_that_fit_are_tried(planned: Planned) -> None:
    found = rows_of(planned)
    best = best_rows(found)
    slowest = min(choice.time.tokens_per_s for choice in best)
    assert len(best) == 4
    assert all(choice.time.tokens_per_s <= 1.06 * slowest for choice in found if choice not in best)
    found = [replace(choice, verdict="ok" if choice is found[-1] else "no") for choice in found]
    assert [choice.ds_config for choice in best_rows(found)] == ["zero3_offload"]
    with pytest.raises(UserError, match="nothing in the plan fits"):
        best_rows([replace(choice, verdict="tight") for choice in found])


def test_a_short_run_is_the_run_with_the_rows_settings(planned: Planned) -> None:
    """And validates as a separate file, whatever schedule the run has."""
    choice = next(c for c in rows_of(planned) if c.ds_config == "zero2" and c.setup.checkpoint_activations)
    config = short_run(choice, planned)
    assert config == toml.validate(RunConfig, json.loads(config.model_dump_json(exclude_none=True)), "short")
    assert config.run_dir == Path(planned.config.runs) / "mine-tune" / "zero2-600-checkpointed"
    assert (config.train.steps, config.data.micro_tokens, config.train.checkpoint_activations) == (STEPS, 600, True)
    assert config.data.global_tokens == planned.config.data.global_tokens
    assert (config.evaluate.at_end, config.notify.command) == (False, ())
    zero = ds_config_for(config, 2)["zero_optimization"]
    assert zero == from_config.fitted(dict(choice.setup.zero), planned.work.shape)


def test_the_speed_is_the_median_after_the_first_steps_of_a_run_that_got_through(tmp_path: Path) -> None:
    rows = [{"step": step, "tokens_per_s": 1.0 if step <= WARM else 100.0 + step} for step in range(1, STEPS + 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert measured(tmp_path) == 100.0 + (WARM + 1 + STEPS) / 2
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert measured(tmp_path) is None
    assert measured(tmp_path / "none") is None


def test_a_mistake_of_all_runs_stops_before_any_is_submitted(planned: Planned, tmp_path: Path) -> None:
    profile = load_profile("local")
    with pytest.raises(UserError, match="range"):
        tune(planned, [], profile.model_copy(update={"executor": "slurm", "nodes_max": 3}), lambda row: None)
    data = planned.config.data.model_copy(update={"path": str(tmp_path / "none")})
    lost = replace(planned, config=planned.config.model_copy(update={"data": data}))
    with pytest.raises(UserError, match="none"):
        tune(lost, best_rows(rows_of(planned)), profile, lambda row: None)
    assert not (Path(planned.config.runs) / "mine-tune").exists()
