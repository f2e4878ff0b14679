from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.errors import UserError
from bigchem.sweep.grid import load_runs

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


def test_mixture_and_size_override_the_base(tmp_path: Path) -> None:
    made = runs(tmp_path)
    together, alone = made["1m-all-s1"], made["1m-captioning-s1"]
    assert (together.train.steps, alone.train.steps) == (70, 30)
    assert (together.data.path, together.data.mixture) == ("somewhere", {"captioning": 1.0, "forward": 2.0})
    assert (together.optimizer.lr, made["0.2m-all-s1"].optimizer.lr) == (1e-4, 3e-3)
    assert (together.seed, together.model.preset, str(together.run_dir)) == (1, "sweep-1m", "runs/g/1m-all-s1")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('[per_size."sweep-1m"]', '[per_size."sweep-2m"]', "per_size names 'sweep-2m'"),
        ('"train.steps" = 70', '"train.stps" = 7', "did you mean 'steps'"),
        ("forward = 2", "froward = 2", "did you mean 'forward'"),
        ('base = "demo"', 'base = "dmo"', "did you mean 'demo'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "a seed stands twice"),
        ('data.path = "somewhere"', "seed = 3", "'seed' is set by the grid itself"),
        ('data.path = "somewhere"', '"train.steps.x" = 3', "'steps' in 'train.steps.x' is not a section"),
    ],
)
def test_mistakes_in_a_grid_are_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        runs(tmp_path, GRID.replace(old, new))


def test_the_shipped_demo_is_three_sizes_together_and_alone() -> None:
    configs = load_runs("demo-sweep")
    assert len({config.model.preset for config in configs}) == 3
    assert {len(config.data.mixture) for config in configs} == {1, 5}
