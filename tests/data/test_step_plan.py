from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.config import DataConfig, ModelConfig, RunConfig
from bigchem.data.order.span_corruption import Spans
from bigchem.data.step_plan import Plan, TrainingRows, evaluated_tasks, flops_cost, open_data
from bigchem.data.storage.shards import Data
from bigchem.model.flops import forward_flops
from bigchem.model.presets import shape, to_hf_config
from bigchem.tasks import shipped

CONFIG = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=300, max_target_tokens=300)
raw_lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60)


def with_fields(**fields: object) -> DataConfig:
    return CONFIG.model_copy(update=fields)


@given(raw_lengths, st.integers(1, 30), st.integers(1, 30), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_rows_under_the_caps_are_numbered_without_gaps(
    raw: list[tuple[int, int]], source_cap: int, target_cap: int, shard: int
) -> None:
    lengths = np.array(raw, dtype=np.uint16)
    rows = TrainingRows(lengths[:, None], (source_cap, target_cap), "drop", None)
    selected = np.flatnonzero((lengths <= (source_cap, target_cap)).all(axis=1))
    numbers = np.arange(rows.size)
    assert rows.stored(numbers).tolist() == selected.tolist()
    np.testing.assert_array_equal(rows.lengths(numbers, np.zeros_like(numbers)), lengths[selected])
    assert rows.tokens() == int(lengths[selected].sum())
    shard_rows = np.array([min(shard, len(raw) - start) for start in range(0, len(raw), shard)])
    by_shard = [int(((selected >= s) & (selected < s + shard)).sum()) for s in range(0, len(raw), shard)]
    assert rows.per_shard(shard_rows).tolist() == by_shard


def test_cut_rows_are_all_there_at_most_as_long_as_the_caps() -> None:
    rows = TrainingRows(np.array([[5, 5], [50, 5], [5, 90]], dtype=np.uint16)[:, None], (20, 30), "cut", None)
    assert rows.lengths(np.arange(3), np.zeros(3, dtype=np.int64)).tolist() == [[5, 5], [20, 5], [5, 30]]
    assert (rows.size, rows.cut) == (3, 2)


def test_span_rows_have_the_lengths_of_their_two_sides_and_too_short_ones_are_left_out() -> None:
    spans = Spans(0.15, 3.0, np.arange(100, dtype=np.int32))
    rows = TrainingRows(np.array([[2, 0], [3, 0], [101, 0]], dtype=np.uint16)[:, None], (400, 0), "drop", spans)
    assert rows.stored(np.arange(2)).tolist() == [1, 2]
    assert rows.lengths(np.arange(2), np.zeros(2, dtype=np.int64)).tolist() == [[3, 3], [91, 21]]
    assert rows.skipped() == "1 too short for spans"


def test_an_unknown_task_in_the_mixture_is_refused_and_without_a_mixture_it_is_what_the_data_hold(
    small_data: Path,
) -> None:
    data = Data(small_data)
    with pytest.raises(UserError, match=r"(?s)unknown task 'captoining'.*did you mean 'captioning'"):
        Plan(data, with_fields(mixture={"captoining": 1.0}), 0)
    plan = Plan(data, CONFIG, 0)
    assert [task.name for task in plan.tasks.values()] == list(data.index.rows("train"))
    assert set(plan.mixture.requested.values()) == {0.2}


def test_a_run_is_evaluated_on_its_tasks_or_those_that_it_is_asked_for(small_data: Path) -> None:
    def evaluated(*tasks: str, mixture: dict[str, float] | None = None) -> tuple[str, ...]:
        config = toml.load(RunConfig, resources.find("recipes", "demo", ".toml"), (f"data.path={small_data}",))
        data = config.data.model_copy(update={"mixture": mixture or {}})
        changed = {"data": data, "evaluate": config.evaluate.model_copy(update={"tasks": tasks})}
        return evaluated_tasks(config.model_copy(update=changed), Data(small_data))

    assert set(evaluated()) == set(shipped().scored)
    assert evaluated("forward", "captioning") == ("captioning", "forward")
    assert evaluated("forward", "captioning", mixture={"forward": 1.0}) == ("forward",)
    with pytest.raises(UserError, match="trained on none of them: captioning"):
        evaluated("captioning", mixture={"forward": 1.0})
    with pytest.raises(UserError, match="did you mean 'captioning'"):
        evaluated("captoining")


def test_caps_are_of_what_the_model_sees_of_span_rows(unlabelled: Path) -> None:
    config = with_fields(mixture={"text_spans": 1.0}, max_source_tokens=40, max_target_tokens=300)
    plan = Plan(Data(unlabelled), config, 0)
    rows = plan.rows[shipped()["text_spans"].id]
    lengths = Data(unlabelled).split("train", "text_spans").lengths[:, 0].astype(np.int64)
    left_out = np.setdiff1d(np.arange(len(lengths)), rows.stored(np.arange(rows.size)))
    assert 0 < len(left_out) == rows.num_skipped
    assert plan.steps.at(0).lengths[:, 0].max() <= 40
    assert plan.spans is not None
    seen = plan.spans.lengths(lengths - 1)[:, 0]
    assert seen[left_out].min() > 40
    assert np.delete(seen, left_out).max() <= 40


def test_caps_below_the_shortest_sides_of_a_span_row_are_a_user_error(unlabelled: Path) -> None:
    for over_caps in ("drop", "cut"):
        config = with_fields(mixture={"text_spans": 1.0}, max_target_tokens=2, over_caps=over_caps)
        with pytest.raises(UserError, match="too low for span corruption"):
            Plan(Data(unlabelled), config, 0)


def test_data_without_sentinels_says_what_to_do(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sentinels"):
        Plan(Data(small_data), with_fields(mixture={"text_spans": 1.0}), 0)


def test_temperature_mixes_by_size(unlabelled: Path) -> None:
    mixture = {"smiles_spans": 1.0, "text_spans": 1.0}
    shares = {
        temperature: Plan(Data(unlabelled), with_fields(mixture=mixture, temperature=temperature), 0).mixture.shares
        for temperature in (None, 1.0, 1e6)
    }
    sizes = Data(unlabelled).index.rows("train")
    by_size = sizes["smiles_spans"] / sum(sizes.values())
    assert shares[None] == {shipped()["smiles_spans"].id: 0.5, shipped()["text_spans"].id: 0.5}
    assert shares[1.0][shipped()["smiles_spans"].id] == pytest.approx(by_size, abs=1e-4)
    assert shares[1e6][shipped()["smiles_spans"].id] == pytest.approx(0.5, abs=1e-4)


def test_more_steps_than_capped_data_holds_are_refused_before_the_first(small_data: Path) -> None:
    plan = Plan(Data(small_data), with_fields(max_epochs=2), 0)
    end, position, steps = plan.mixture.end, 0, 0
    while position < (end or 0):
        position, steps = plan.steps.at(position).stop, steps + 1
    plan.check_steps(int(0.98 * steps))
    with pytest.raises(UserError, match=r"max_epochs = 2 leaves data for about"):
        plan.check_steps(int(1.05 * steps) + 2)
    Plan(Data(small_data), CONFIG, 0).check_steps(10**9)


def test_a_window_keeps_a_step_within_few_shards_and_loses_no_row(small_data: Path) -> None:
    """70 rows per shard: 600 training rows of five tasks are two shards each; a window of one reads one at a time."""
    data = Data(small_data)
    mixture = {"captioning": 1.0}
    rows = data.split("train", "captioning")
    flat, windowed = (
        Plan(data, with_fields(mixture=mixture, shuffle_window=window, max_epochs=1), 0) for window in (0, 1)
    )
    orders = [plan.steps.order.examples(0, len(rows)).rows for plan in (flat, windowed)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(rows)))
    shard = orders[1] // 70
    assert np.count_nonzero(np.diff(shard)) == len(rows.shards) - 1
    assert np.count_nonzero(np.diff(orders[0] // 70)) > len(rows.shards)


@pytest.mark.parametrize("scan", [1 << 20, 64])
def test_a_window_over_shards_some_of_whose_rows_are_left_out_holds_the_others_once(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, scan: int
) -> None:
    monkeypatch.setattr("bigchem.data.step_plan.SCAN", scan)
    data = Data(small_data)
    lengths = data.split("train", "captioning").lengths
    selected = np.flatnonzero((lengths <= (300, 50)).all(axis=1))
    assert 0 < len(selected) < len(lengths)
    for window in (0, 1, 2):
        config = with_fields(mixture={"captioning": 1.0}, shuffle_window=window, max_target_tokens=50)
        plan = Plan(data, config, 0)
        rows = plan.rows[shipped()["captioning"].id].stored(plan.steps.order.examples(0, len(selected)).rows)
        assert sorted(rows) == selected.tolist()
        if window == 1:
            assert np.count_nonzero(np.diff(rows // 70)) == 1


def test_cost_is_the_models_operations(tmp_path: Path) -> None:
    lengths = np.array([[10, 20], [300, 5]])
    small = shape("t5-small", 512)
    expected = [forward_flops(small, [s], [t]) for s, t in lengths.tolist()]
    assert flops_cost(ModelConfig(preset="t5-small"), 512)(lengths).tolist() == expected
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(small, 0.0)))
    assert flops_cost(ModelConfig(init_from=str(tmp_path)), 512)(lengths).tolist() == expected


def test_micro_batches_are_balanced_by_cost_rather_than_by_tokens(small_data: Path) -> None:
    cost = flops_cost(ModelConfig(preset="t5-base"), 32128)
    config = with_fields(global_tokens=32000, micro_tokens=4000)
    by_cost, by_tokens = (Plan(Data(small_data), config, 0, chosen) for chosen in (cost, None))
    step = by_cost.steps.at(0)
    unevenness = []
    for plan in (by_cost, by_tokens):
        spent = [int(cost(step.lengths[chosen]).sum()) for _, _, chosen in plan.deal(step, 8)]
        unevenness.append(max(spent) / min(spent))
    assert unevenness[0] < unevenness[1]


def test_a_cache_that_every_step_would_turn_over_is_told(small_data: Path, tmp_path: Path) -> None:
    remote = {"path": f"file://{small_data}", "cache": str(tmp_path / "cache"), "cache_gb": 1e-4}
    for fields, expected in (({}, True), ({"shuffle_window": 2}, False), ({"cache_gb": 1.0}, False)):
        config = with_fields(**{**remote, **fields})
        data = open_data(config)
        assert ("set data.shuffle_window" in (Plan(data, config, 0).advice(data) or "")) is expected
    assert Plan(Data(small_data), with_fields(cache_gb=1e-6), 0).advice(Data(small_data)) is None


def test_local_data_makes_no_cache(small_data: Path, tmp_path: Path) -> None:
    open_data(with_fields(path=str(small_data), cache=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()
    opened = open_data(with_fields(path=f"file://{small_data}", cache=str(tmp_path / "cache")))
    assert opened.tokenizer_dir.is_relative_to(tmp_path / "cache")
