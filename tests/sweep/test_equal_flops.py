"""`flops` of a sweep, and the example of docs/sweeps.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, flops_cost, open_data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.workloads.sweep import dry_run_text
from bigchem.sweep.grid import load_grid, load_runs, sweep_runs

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
GRID = """
name = "iso"
base = "demo"
sizes = ["sweep-0.2m", "sweep-1m"]
flops = [4e11, 1.2e12]
[mixtures.all.weights]
captioning = 1
forward = 2
[mixtures.captioning.weights]
captioning = 1
"""


def runs(folder: Path, data: Path, text: str = GRID) -> dict[str, RunConfig]:
    (folder / "g.toml").write_text(text)
    return {config.name: config for config in load_runs(str(folder / "g.toml"), (f"base_set.data.path={data}",))}


def counted(config: RunConfig) -> float:
    """The operations of a run's training."""
    data = open_data(config.data)
    cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
    blocks = Plan(data, config.data, config.seed).steps.blocks(config.train.steps)
    return 3 * sum(float(cost(lengths).sum()) for _, _, lengths in blocks)


def test_every_size_and_mixture_has_the_steps_that_cost_the_operations(small_data: Path, tmp_path: Path) -> None:
    made = runs(tmp_path, small_data)
    assert len(made) == 8
    assert made["1m-all-flops4e11-s0"].sweep.axes == {"flops": 4e11}
    for config in made.values():
        assert counted(config) == pytest.approx(config.sweep.axes["flops"], rel=0.03), config.name
    assert made["0.2m-all-flops1.2e12-s0"].train.steps > 3.5 * made["1m-all-flops1.2e12-s0"].train.steps


def test_alone_is_matched_with_the_shared_run_of_its_size_and_operations(small_data: Path, tmp_path: Path) -> None:
    made = runs(tmp_path, small_data, GRID.replace("flops =", 'alone = "tokens"\nflops ='))
    for size in ("0.2m", "1m"):
        together, alone = (made[f"{size}-{mixture}-flops1.2e12-s0"] for mixture in ("all", "captioning"))
        assert together.train.steps == alone.train.steps
        assert together.data.global_tokens == alone.data.global_tokens


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4e11, 1.2e12]", "[4e11, 4e11]", "duplicate value in axes: 'flops'"),
        ("[4e11, 1.2e12]", "[2e3]", "flops = 2000 is less than a step"),
        ("[mixtures.all", "[base_set]\ntrain.steps = 3\n[mixtures.all", "and base_set sets 'train.steps' too"),
        ("[mixtures.all", "[select]\nvalues = [1e-3, 1e-4]\n[mixtures.all", "select and flops exclude each other"),
    ],
)
def test_mistakes_are_told(small_data: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        runs(tmp_path, small_data, GRID.replace(old, new))


def test_without_the_data_nothing_can_be_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`flops` is counted along the data in"):
        runs(tmp_path, tmp_path / "nowhere")


def test_the_pages_example_of_equal_flops_runs_dry(small_data: Path, tmp_path: Path) -> None:
    (text,) = (block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "flops = [" in block)
    file = tmp_path / "isoflop.toml"
    file.write_text(text)
    few = ("base_set.data.global_tokens=4096", "base_set.data.micro_tokens=4096")
    grid = load_grid(str(file), (f"base_set.data.path={small_data}", *few))
    lines = dry_run_text(sweep_runs(grid, load_profile("local")))
    found = dict(re.findall(r"^\s*(\S+-flops\S+-s0) .* (\d+) steps", lines.replace(",", ""), re.MULTILINE))
    assert len(found) == 3 * 3 * 2
    small, large = (int(found[f"runs/isoflop/t5-{size}-all-flops1e19-s0"]) for size in ("small", "large"))
    assert small > 8 * large
