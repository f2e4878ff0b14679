"""Sizes of communication buckets: derived from the model where the DeepSpeed file leaves them out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.config import RunConfig
from bigchem.ds_config import Completed, completed
from bigchem.ds_config.buckets import BUCKETS, LARGEST, SMALLEST, derived
from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import PRESETS, num_parameters, shape

MODELS = st.sampled_from(sorted(PRESETS)).map(shape)


@given(MODELS, st.integers(1, 3))
def test_gradients_fill_several_buckets_unless_the_model_is_small(model: Any, stage: int) -> None:
    size, n = derived(model, stage)["reduce_bucket_size"], num_parameters(model)
    assert min(n, SMALLEST) <= size <= LARGEST
    assert n / size <= max(BUCKETS, n / LARGEST)
    assert n <= SMALLEST or n / size > BUCKETS / 2 or size <= SMALLEST


@given(MODELS)
def test_stage_3_keeps_vectors_and_tables_and_no_matrix_of_a_published_size(model: Any) -> None:
    kept = derived(model, 3)["stage3_param_persistence_threshold"]
    sizes = {name: dims[0] * (dims[1] if len(dims) == 2 else 1) for name, dims in parameter_shapes(model).items()}
    small = {name for name, size in sizes.items() if size <= kept}
    assert small == {name for name in sizes if "layer_norm" in name or "relative_attention_bias" in name}


@given(MODELS, st.integers(0, 3), st.integers(1, 500))
def test_a_few_more_rows_of_the_embedding_change_at_most_one_million(model: Any, stage: int, rows: int) -> None:
    now, then = derived(model, stage), derived(replace(model, vocab_size=model.vocab_size + rows), stage)
    assert all(0 <= then[key] - size <= 1_000_000 for key, size in now.items())


def test_t5_base_sends_its_gradients_in_16_buckets() -> None:
    assert derived(shape("t5-base"), 2) == {"reduce_bucket_size": 14_000_000}
    assert derived(shape("t5-base"), 0) == {}


def of(folder: Path, zero: dict[str, Any], **model: str) -> Completed:
    (folder / "mine.json").write_text(json.dumps({"zero_optimization": zero}))
    table = {"model": {"preset": "t5-base", **model}, "train": {"ds_config": str(folder / "mine.json")}}
    return completed(RunConfig.model_validate(table), 2)


@pytest.mark.parametrize("stated", [{}, {"reduce_bucket_size": "auto"}])
def test_what_the_file_leaves_open_is_derived_and_told(tmp_path: Path, stated: dict[str, Any]) -> None:
    found = of(tmp_path, {"stage": 2, **stated})
    assert found.table["zero_optimization"]["reduce_bucket_size"] == 14_000_000
    assert found.notes == ("derived from the model's 223 M parameters: reduce_bucket_size = 14,000,000",)


def test_the_users_value_wins(tmp_path: Path) -> None:
    sizes = {"reduce_bucket_size": 3, "prefetch_bucket_size": 4, "stage3_param_persistence_threshold": 5}
    found = of(tmp_path, {"stage": 3, **sizes})
    zero = found.table["zero_optimization"]
    assert [zero[f"{prefix}{key}"] for prefix, key in ANY] == [3, 4, 5]
    assert not [note for note in found.notes if note.startswith("derived")]


ANY = [("", "reduce_bucket_size"), ("stage3_", "prefetch_bucket_size"), ("stage3_", "param_persistence_threshold")]


def test_a_model_that_is_not_here_yet_leaves_deepspeeds_sizes(tmp_path: Path) -> None:
    found = of(tmp_path, {"stage": 2}, init_from="nobody/no-such-model")
    assert "reduce_bucket_size" not in found.table["zero_optimization"]


def test_deepspeeds_timer_is_off_unless_the_file_asks_for_it(tmp_path: Path) -> None:
    """It waits for the device three times a step."""
    assert of(tmp_path, {"stage": 2}).table["timers"] == {"throughput": {"enabled": False}}
    (tmp_path / "mine.json").write_text('{"timers": {"throughput": {"enabled": true}}}')
    config = RunConfig.model_validate({"train": {"ds_config": str(tmp_path / "mine.json")}})
    assert completed(config, 1).table["timers"] == {"throughput": {"enabled": True}}
