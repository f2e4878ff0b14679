from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.workloads.sweep import dry_run_text
from bigchem.sweep.grid import expand, load_grid, load_runs, sweep_runs

GRID = """
name = "g"
base = "demo"
sizes = ["sweep-0.2m", "sweep-1m"]
seeds = [0, 1]
[base_set]
"train.steps" = 70
data.path = "somewhere"
[mixtures.all.weights]
captioning = 1
forward = 2
[mixtures.captioning]
weights = { captioning = 1 }
set = { train = { steps = 30 } }
[per_size."sweep-1m"]
"optimizer.lr" = 1e-4
"""


def runs(tmp_path: Path, text: str = GRID) -> dict[str, object]:
    (tmp_path / "g.toml").write_text(text)
    return {config.name: config for config in load_runs(str(tmp_path / "g.toml"))}


def test_a_grid_is_sizes_times_mixtures_times_seeds(tmp_path: Path) -> None:
    made = runs(tmp_path)
    assert list(made)[:4] == ["0.2m-all-s0", "0.2m-all-s1", "0.2m-captioning-s0", "0.2m-captioning-s1"]
    assert len(made) == 8


def test_a_mixture_may_be_of_some_sizes_only(tmp_path: Path) -> None:
    made = runs(tmp_path, GRID.replace("[mixtures.captioning]", '[mixtures.captioning]\nsizes = ["sweep-1m"]'))
    assert [name for name in made if "captioning" in name] == ["1m-captioning-s0", "1m-captioning-s1"]
    assert len(made) == 6


def test_sizes_on_the_command_line_leave_out_what_the_file_sets_for_others(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        GRID.replace("[mixtures.captioning]", '[mixtures.captioning]\nsizes = ["sweep-1m"]')
    )
    small = load_runs(str(tmp_path / "g.toml"), ('sizes=["sweep-0.2m"]',))
    assert [config.name for config in small] == ["0.2m-all-s0", "0.2m-all-s1"]
    larger = load_runs(str(tmp_path / "g.toml"), ('sizes=["sweep-1m"]',))
    assert [config.name for config in larger][2:] == ["1m-captioning-s0", "1m-captioning-s1"]
    assert {config.optimizer.lr for config in larger} == {1e-4}
    spaced = load_runs(str(tmp_path / "g.toml"), ('sizes = ["sweep-1m"]',))
    assert spaced == larger
    alone = ('sizes=["sweep-0.2m"]', 'mixtures={captioning={weights={captioning=1}, sizes=["sweep-1m"]}}')
    with pytest.raises(UserError, match="no mixture trains on these sizes"):
        load_runs(str(tmp_path / "g.toml"), alone)
    with pytest.raises(UserError, match=r"per_size names 'sweep-2m'"):
        load_runs(str(tmp_path / "g.toml"), ('sizes=["sweep-1m"]', 'per_size={"sweep-2m" = {}}'))


def test_mixture_and_size_override_the_base(tmp_path: Path) -> None:
    made = runs(tmp_path)
    together, alone = made["1m-all-s1"], made["1m-captioning-s1"]
    assert (together.train.steps, alone.train.steps) == (70, 30)
    assert (together.data.path, together.data.mixture) == ("somewhere", {"captioning": 1.0, "forward": 2.0})
    assert (together.optimizer.lr, made["0.2m-all-s1"].optimizer.lr) == (1e-4, 3e-3)
    assert (together.seed, together.model.preset, str(together.run_dir)) == (1, "sweep-1m", "runs/g/1m-all-s1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('[per_size."sweep-1m"]', '[per_size."sweep-2m"]', "per_size names 'sweep-2m'"),
        ('[per_size."sweep-1m"]', '[resources."sweep-2m"]', "resources names 'sweep-2m'"),
        ("[mixtures.captioning]", '[mixtures.captioning]\nsizes = ["2m"]', "mixtures.captioning.sizes names '2m'"),
        (
            "[mixtures.captioning]",
            '[mixtures.captioning]\nmatched = "tokens"',
            "captioning.matched = 'tokens', and",
        ),
        (
            "[per_size",
            '[axes]\n"optimizer.lr" = [1e-3]\n[per_size',
            "is an axis, and per_size.sweep-1m sets",
        ),
        ("[per_size", '[axes]\n"train.steps" = [30]\n[per_size', "is an axis, and base_set sets it too"),
        ("[per_size", "[axes]\nseed = [3]\n[per_size", "'seed' is set by the grid itself"),
        ("[per_size", "[axes]\ntrain.seq = 3\n[per_size", "'train.seq' = 3 is not a list of values"),
        ("[per_size", '[axes]\n"optimizer.kind" = ["a", "a"]\n[per_size', "duplicate value in axes"),
        (
            "[per_size",
            '[axes]\n"data.cache" = ["a/b", "a-b"]\n[per_size',
            "two runs would be called",
        ),
        ("[per_size", '[axes]\n"train.stps" = [30]\n[per_size', "did you mean 'steps'"),
        ('"train.steps" = 70', '"train.stps" = 7', "did you mean 'steps'"),
        ("forward = 2", "forward = 0", "weights must be above 0"),
        ('base = "demo"', 'base = "dmo"', "did you mean 'demo'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "duplicate seed in seeds"),
        ('data.path = "somewhere"', "seed = 3", "'seed' is set by the grid itself"),
        ('data.path = "somewhere"', '"train.steps.x" = 3', "'steps' in 'train.steps.x' is not a section"),
    ],
)
def test_mistakes_in_a_grid_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        runs(tmp_path, GRID.replace(old, new))


def test_a_mixture_names_tasks_of_the_data_or_none_for_all_of_them(tmp_path: Path) -> None:
    text = GRID.replace("forward = 2", "solubility = 2") + "[mixtures.everything]\n"
    made = runs(tmp_path, text)
    assert made["1m-all-s0"].data.mixture == {"captioning": 1.0, "solubility": 2.0}
    assert made["1m-everything-s0"].data.mixture == {}
    lines = dry_run_text(sweep_runs(load_grid(str(tmp_path / "g.toml")), SLURM))
    assert "1m-everything-s0  sweep-1m  all tasks  70 steps" in lines


def test_the_shipped_demo_has_a_baseline_for_every_task_that_it_evaluates() -> None:
    configs = expand(load_grid("demo-sweep").model_copy(update={"alone": None}))  # which needs the data
    alone = {(*run.data.mixture, run.model.preset, run.seed) for run in configs if len(run.data.mixture) == 1}
    together = [run for run in configs if len(run.data.mixture) == 5]
    assert {run.seed for run in together} == {0, 1}
    assert alone == {(task, run.model.preset, run.seed) for run in together for task in run.evaluate.tasks}


AXES = (
    GRID.replace('"optimizer.lr" = 1e-4', '"data.micro_tokens" = 800')
    + """
[axes]
"optimizer.lr" = [3e-4, 6e-4]
schedule.kind = ["cosine", "constant"]
"""
)


def test_further_axes_multiply_the_runs_and_stand_in_their_names(tmp_path: Path) -> None:
    made = runs(tmp_path, AXES)
    assert len(made) == 8 * 2 * 2
    run = made["1m-captioning-lr0.0006-kindconstant-s1"]
    assert (run.optimizer.lr, run.schedule.kind, run.seed, run.data.micro_tokens) == (6e-4, "constant", 1, 800)
    assert made["0.2m-all-lr0.0003-kindcosine-s0"].data.micro_tokens == 1600


def test_axes_of_one_last_word_are_told_apart_by_all_of_it(tmp_path: Path) -> None:
    text = GRID.replace("seeds = [0, 1]", "seeds = [0]") + "[axes]\nvalidation.every = [0]\ncheckpoint.every = [7]\n"
    assert "0.2m-all-validation.every0-checkpoint.every7-s0" in runs(tmp_path, text)


RESOURCES = (
    GRID
    + """
[resources."sweep-1m"]
gpus_per_node = 8
nodes = 2
time_min = 600
env.NCCL_DEBUG = "INFO"
[evaluation]
gpus_per_node = 1
"""
)
SLURM = ClusterProfile(executor="slurm", gpus_per_node=4, tasks_per_node=4, env={"A": "b"}, max_concurrent=3)


def test_sizes_and_evaluations_have_resources_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(RESOURCES)
    made = {run.config.name: run for run in sweep_runs(load_grid(str(tmp_path / "g.toml")), SLURM)}
    assert made["0.2m-all-s0"].profile == SLURM
    large = made["1m-all-s0"].profile
    assert (large.nodes, large.gpus_per_node, large.tasks_per_node, large.time_min) == (2, 8, 8, 600)
    assert large.env == {"A": "b", "NCCL_DEBUG": "INFO"}
    after = made["1m-all-s0"].evaluation
    assert after is not None
    assert (after.nodes, after.world_size, after.max_concurrent) == (1, 1, 3)


def test_a_dry_run_lists_an_array_for_each_shape_of_job(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(RESOURCES)
    lines = dry_run_text(sweep_runs(load_grid(str(tmp_path / "g.toml")), SLURM)).splitlines()
    heads = [line for line in lines if line.startswith("#")]
    assert heads == [
        "# 4 runs of 1 x 4 processes, 4 GPUs a node, 1440 min, 3 at a time",
        "# then each evaluated by 1 x 1 processes",
        "# 4 runs of 2 x 8 processes, 8 GPUs a node, 600 min, 3 at a time",
        "# then each evaluated by 1 x 1 processes",
    ]
    assert lines[1] == "runs/g/0.2m-all-s0  sweep-0.2m  captioning forward  70 steps"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("time_min = 600", "time_mn = 600", r"resources.sweep-1m: unknown key `time_mn`\n.*did you mean 'time_min'"),
        ("time_min = 600", 'executor = "local"', "'executor' is the same for all runs"),
        ("gpus_per_node = 8", "gpus_per_node = 0\ntasks_per_node = 0", "tasks_per_node"),
    ],
)
def test_mistakes_in_resources_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "g.toml").write_text(RESOURCES.replace(old, new))
    with pytest.raises(UserError, match=message):
        sweep_runs(load_grid(str(tmp_path / "g.toml")), SLURM)


def test_two_nodes_are_refused_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(RESOURCES)
    with pytest.raises(UserError, match="nodes = 2: the local executor has one"):
        sweep_runs(load_grid(str(tmp_path / "g.toml")), load_profile("local"))
