from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, flops_cost, open_data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.sweep import grid
from bigchem.sweep.alone import Matching, nearest_tokens
from bigchem.sweep.grid import load_runs

GRID = """
name = "g"
base = "demo"
sizes = ["sweep-0.2m"]
seeds = [0, 1]
alone = "examples"
[base_set]
data = { global_tokens = 6000, max_source_tokens = 200, max_target_tokens = 200 }
[mixtures.all.weights]
captioning = 1
forward = 2
[mixtures.captioning.weights]
captioning = 1
"""


def runs(folder: Path, data: Path, text: str = GRID) -> dict[str, RunConfig]:
    (folder / "g.toml").write_text(text)
    return {config.name: config for config in load_runs(str(folder / "g.toml"), (f"base_set.data.path={data}",))}


def counted(config: RunConfig) -> dict[str, float]:
    """What a whole run consumes: examples of captioning, tokens, operations."""
    data = open_data(config.data)
    plan = Plan(data, config.data, config.seed)
    cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
    found = {"examples": 0.0, "tokens": 0.0, "compute": 0.0}
    for _, task_ids, lengths in plan.steps.blocks(config.train.steps):
        found["examples"] += (task_ids == data.tasks["captioning"].id).sum()
        found["tokens"] += lengths.sum()
        found["compute"] += cost(lengths).sum()
    return found


@pytest.mark.parametrize("alone", ["examples", "tokens", "compute"])
def test_alone_has_as_much_of_what_is_matched_in_as_many_steps(small_data: Path, tmp_path: Path, alone: str) -> None:
    made = runs(tmp_path, small_data, GRID.replace('"examples"', f'"{alone}"'))
    for seed in (0, 1):
        together, single = made[f"0.2m-all-s{seed}"], made[f"0.2m-captioning-s{seed}"]
        assert single.train.steps == together.train.steps
        assert counted(single)[alone] == pytest.approx(counted(together)[alone], rel=0.02)
        assert (single.sweep.alone, together.sweep.alone) == (alone, None)
    assert single.data.global_tokens == made["0.2m-captioning-s0"].data.global_tokens
    if alone != "tokens":
        assert abs(counted(single)["tokens"] / counted(together)["tokens"] - 1) > 0.02


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[mixtures.all.w", "[mixtures.two.weights]\nforward = 1\nactions = 1\n[mixtures.all.w", "are 2"),
        ("[mixtures.captioning.weights]", "[mixtures.captioning]\nset.train.steps = 3\nweights.forward = 1\n#", "too"),
        ("6000, max_source_tokens = 200", "1600, max_source_tokens = 800", "cannot hold the longest example, 1,000"),
    ],
)
def test_what_cannot_be_matched_is_refused(small_data: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    text = GRID.replace(old, new).replace("#\ncaptioning = 1", "")
    with pytest.raises(UserError, match=message):
        runs(tmp_path, small_data, text)


def test_of_several_shared_mixtures_that_of_all_tasks_is_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matched = []

    class Recorded(Matching):
        """Stands for the counting of the data."""

        def overrides(self, alone: RunConfig, together: RunConfig) -> dict[str, int]:
            matched.append((alone.name, together.name))
            return {}

    monkeypatch.setattr(grid, "Matching", Recorded)
    pair = "[mixtures.pair.weights]\ncaptioning = 1\nactions = 1\n[mixtures.all"
    runs(tmp_path, tmp_path, GRID.replace("forward = 2\n", "forward = 2\nactions = 1\n").replace("[mixtures.all", pair))
    assert matched == [(f"0.2m-captioning-s{seed}", "0.2m-all-s0") for seed in (0, 1)]


TWO_WAYS = """
[mixtures.captioning-compute]
weights.captioning = 1
matched = "compute"
[mixtures.all]
weights = { captioning = 1, forward = 2, actions = 1 }
[mixtures.without-forward]
weights = { captioning = 1, actions = 1 }
matched = "examples"
"""


def test_a_mixture_may_be_matched_in_its_own_way(small_data: Path, tmp_path: Path) -> None:
    start = GRID.index("[mixtures.all")
    made = runs(tmp_path, small_data, GRID[:start] + "[mixtures.captioning.weights]\ncaptioning = 1\n" + TWO_WAYS)
    counts = {name: counted(made[f"0.2m-{name}-s0"]) for name in ("all", "captioning", "captioning-compute")}
    assert counts["captioning-compute"]["compute"] == pytest.approx(counts["all"]["compute"], rel=0.02)
    assert counts["captioning"]["examples"] == pytest.approx(counts["all"]["examples"], rel=0.02)
    assert {made[f"0.2m-{name}-s0"].sweep.alone for name in ("captioning-compute", "captioning")} == {
        "compute",
        "examples",
    }


def test_a_mixture_of_some_tasks_may_have_as_many_examples_of_each_as_that_of_all(
    small_data: Path, tmp_path: Path
) -> None:
    start = GRID.index("[mixtures.all")
    made = runs(tmp_path, small_data, GRID[:start].replace('alone = "examples"', "") + TWO_WAYS)
    some, every = made["0.2m-without-forward-s0"], made["0.2m-all-s0"]
    assert counted(some)["examples"] == pytest.approx(counted(every)["examples"], rel=0.02)
    assert some.data.global_tokens < every.data.global_tokens
    assert (some.train.steps, some.sweep.alone) == (every.train.steps, "examples")


def test_without_the_data_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"computed from the data in .*gone") as error:
        runs(tmp_path, tmp_path / "gone")
    assert "build them first" in str(error.value)


def test_the_nearest_number_of_tokens_is_found() -> None:
    assert nearest_tokens(lambda tokens: tokens // 10, 53) == 530
    assert nearest_tokens(lambda tokens: 3 * (tokens // 7), 10) == 27  # the last with 9, which is nearer than 12
