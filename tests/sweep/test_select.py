from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.run.log_files import BAD_STEPS, record_event
from bigchem.sweep.grid import GridConfig, load_grid, sweep_runs
from bigchem.sweep.select import full_runs, planned_runs, stages

GRID = """
name = "g"
base = "demo"
sizes = ["sweep-0.2m", "sweep-1m"]
seeds = [4, 5]
[base_set]
train.tokens = 1e6
[mixtures.all.weights]
captioning = 1
forward = 2
[mixtures.captioning.weights]
captioning = 1
[select]
field = "optimizer.lr"
values = [1e-3, 3e-3, 1e-2]
set = { train.steps = 50 }
"""


def grid(folder: Path, text: str = GRID) -> GridConfig:
    (folder / "g.toml").write_text(text)
    return load_grid(str(folder / "g.toml"), (f"base_set.runs={folder}",))


def short_runs(read: GridConfig) -> list[RunConfig]:
    """Those that are to be trained first."""
    return next(stages(read))


def finish(config: RunConfig, loss: float | None, step: int | None = None) -> None:
    """The metrics of a run that has reached its last step, or `step`."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    row = {"step": config.train.steps if step is None else step, "loss": 9.0, "valid_loss": loss}
    (config.run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_first_come_short_runs_of_every_value_validated_once_and_not_evaluated(tmp_path: Path) -> None:
    (short,) = stages(grid(tmp_path))
    assert len(short) == 2 * 2 * 3
    assert str(short[0].run_dir) == f"{tmp_path}/g-select/0.2m-all-lr0.001-s4"
    assert {(run.train.steps, run.train.tokens, run.evaluate.at_end, run.seed) for run in short} == {
        (50, None, False, 4)
    }
    assert all(run.validation.every > run.train.steps for run in short)


def test_the_planned_runs_are_known_by_name_before_a_value_is_chosen(tmp_path: Path) -> None:
    """So that `sweep status` and `sweep archive` find them."""
    read = grid(tmp_path)
    planned = [run.run_dir for run in planned_runs(read)]
    for run in short_runs(read):
        finish(run, 2.0)
    assert planned == [run.run_dir for stage in stages(read) for run in stage]


def test_then_every_size_and_mixture_takes_the_value_with_the_lowest_loss_and_records_why(tmp_path: Path) -> None:
    read, said = grid(tmp_path), list[str]()
    best = {("sweep-0.2m", 2): 3e-3, ("sweep-0.2m", 1): 1e-2, ("sweep-1m", 2): 1e-3, ("sweep-1m", 1): 3e-3}
    for run in short_runs(read):
        wanted = best[run.model.preset, len(run.data.mixture)]
        diverged = run.optimizer.lr == 1e-2 and wanted != 1e-2
        finish(run, None if diverged else 2.0 + abs(run.optimizer.lr - wanted))
    *_, full = stages(read, said.append)
    assert len(full) == 2 * 2 * 2
    assert {(run.model.preset, len(run.data.mixture)): run.optimizer.lr for run in full} == best
    assert {run.train.tokens for run in full} == {1e6}
    assert full[0].sweep.selected == {"optimizer.lr": {"0.001": pytest.approx(2.002), "0.003": 2.0}}
    assert "sweep-0.2m captioning: optimizer.lr = 0.01 " in said[0]
    assert said[0].count("extend select.values") == 2


def test_a_lower_value_is_taken_whose_loss_is_within_the_tolerance(tmp_path: Path) -> None:
    losses = {1e-3: 2.05, 3e-3: 2.03, 1e-2: 2.0}
    for tolerance, chosen in ((0.0, 1e-2), (0.02, 3e-3), (0.03, 1e-3)):
        read, said = grid(tmp_path, f"{GRID}tolerance = {tolerance}\n"), list[str]()
        for run in short_runs(read):
            finish(run, losses[run.optimizer.lr])
        *_, full = stages(read, said.append)
        assert {run.optimizer.lr for run in full} == {chosen}
        assert said[0].count("at the edge") == 4  # of the best, whatever is taken


def test_beyond_an_end_that_is_best_further_values_are_tried_until_the_best_is_inside(tmp_path: Path) -> None:
    read, said, stage_lengths = grid(tmp_path, GRID + "extend = 3\n"), list[str](), list[int]()
    best = {"sweep-0.2m": 0.1, "sweep-1m": 1e-5}
    for runs in stages(read, said.append):
        stage_lengths.append(len(runs))
        for run in runs:
            finish(run, 2.0 + abs(math.log(run.optimizer.lr / best[run.model.preset])))
    # 0.2m: 0.0333, 0.111, 0.37; 1m: 3.33e-4, 1.11e-4, 3.7e-5 and no more
    assert stage_lengths == [12, 16, 20, 24, 8]
    chosen = {run.model.preset: run.optimizer.lr for run in full_runs(read)}
    assert chosen == {"sweep-0.2m": pytest.approx(0.111, rel=0.01), "sweep-1m": pytest.approx(3.7e-5, rel=0.01)}
    lines = said[0].splitlines()
    assert "at the edge" not in lines[0]
    assert "at the edge" in lines[2]
    assert full_runs(read)[0].sweep.selected["optimizer.lr"].keys() >= {"0.001", "0.111111"}


def test_a_value_that_diverges_ends_the_values_on_its_side(tmp_path: Path) -> None:
    read, said = grid(tmp_path, GRID + "extend = 3\n"), list[str]()
    stage_lengths = []
    for runs in stages(read, said.append):
        stage_lengths.append(len(runs))
        for run in runs:
            finish(run, None if run.optimizer.lr > 5e-3 else 3.0 - run.optimizer.lr)
    assert stage_lengths == [12, 8]
    assert "at the edge" not in said[0]


def end_by_bad_steps(config: RunConfig, state: str = "failed") -> None:
    """What a run leaves that stops after bad steps in a row."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "metrics.jsonl").write_text('{"step": 30, "loss": 9.0}\n')
    why = f"5 {BAD_STEPS} up to step 31, the last: the loss is nan; there is no checkpoint to roll back to"
    (config.run_dir / "state.json").write_text(json.dumps({"state": state, "step": 30, "steps": 50, "reason": why}))
    record_event(config.run_dir, 31, "roll back", "stopped: there is no checkpoint to roll back to", f"5 {BAD_STEPS}")
    record_event(config.run_dir, 31, "notification", "failed", "its webhook does not answer")


def test_a_short_run_that_ends_by_bad_steps_counts_as_the_worst_and_is_not_started_again(tmp_path: Path) -> None:
    read, said = grid(tmp_path, GRID + "extend = 3\n"), list[str]()
    stage_lengths = []
    for runs in stages(read, said.append):
        stage_lengths.append(len(runs))
        for run in runs:
            if run.optimizer.lr > 2e-2:
                end_by_bad_steps(run)
            else:
                finish(run, 3.0 - run.optimizer.lr)
    assert stage_lengths == [12, 16, 8]
    assert {run.optimizer.lr for run in full_runs(read)} == {1e-2}
    assert "at the edge" not in said[0]
    assert [len(runs) for runs in stages(read)] == [12, 8]


def test_what_short_runs_set_wins_over_mixtures_and_sizes(tmp_path: Path) -> None:
    sizes = '[per_size."sweep-1m"]\ntrain.steps = 30000\n[mixtures.all.set]\nevaluate.at_end = true\n'
    runs = short_runs(grid(tmp_path, GRID.replace("[select]", f"{sizes}[select]")))
    assert {(run.train.steps, run.evaluate.at_end) for run in runs} == {(50, False)}


def test_where_every_short_run_ends_by_bad_steps_no_full_run_follows(tmp_path: Path) -> None:
    read = grid(tmp_path)
    for run in short_runs(read):
        end_by_bad_steps(run)
    with pytest.raises(UserError, match="no value has a finite validation loss"):
        list(stages(read))
    assert sweep_runs(read, ClusterProfile(executor="local"), configs=[]) == []


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_short_run_that_fails_otherwise_or_goes_on_is_waited_for(tmp_path: Path, state: str) -> None:
    read = grid(tmp_path)
    *others, last = short_runs(read)
    for run in others:
        finish(run, 2.0)
    end_by_bad_steps(last, state)
    if state == "failed":
        (last.run_dir / "state.json").write_text('{"state": "failed", "step": 30, "steps": 50, "reason": "killed"}')
    assert len(list(stages(read))) == 1


def test_values_that_cannot_be_continued_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extend continues `values` by their ratio"):
        grid(tmp_path, GRID.replace("[1e-3, 3e-3, 1e-2]", "[1e-2, 1e-3]") + "extend = 1\n")


def test_while_a_short_run_is_not_done_nothing_is_chosen(tmp_path: Path) -> None:
    read, said = grid(tmp_path), list[str]()
    for run in short_runs(read)[:-1]:
        finish(run, 2.0)
    finish(short_runs(read)[-1], 2.0, step=49)
    assert len(list(stages(read, said.append))) == 1
    assert "the same command submits them" in said[0]
    assert {run.optimizer.lr for run in full_runs(read)} == {1e-3}


def test_what_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="select and axes exclude each other"):
        grid(tmp_path, GRID + '[axes]\n"model.dropout" = [0.0, 0.1]\n')
    with pytest.raises(UserError, match=r"select\.field = 'train\.steps'"):
        grid(tmp_path, GRID.replace('"optimizer.lr"', '"train.steps"'))
    with pytest.raises(UserError, match="on the test split"):
        short_runs(grid(tmp_path, GRID.replace("tokens = 1e6", 'tokens = 1e6\nvalidation.split = "test"')))
    read = grid(tmp_path)
    for run in short_runs(read):
        finish(run, None)
    with pytest.raises(UserError, match="no value has a finite validation loss"):
        list(stages(read))
