import json

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.errors import UserError
from bigchem.model.presets import PRESETS, Shape, from_hf_config, num_parameters, shape, to_hf_config


def transformers_parameters(config: dict) -> int:
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(**{k: v for k, v in config.items() if k != "model_type"}))
    # transformers 5 always ties at construction; lm_head is counted where the checkpoint has one of its own.
    untied = 0 if model.config.scale_decoder_outputs else model.lm_head.weight.numel()
    return sum(p.numel() for p in model.parameters()) + untied


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts_are_those_of_transformers(preset: str) -> None:
    assert num_parameters(shape(preset)) == transformers_parameters(to_hf_config(shape(preset), dropout=0.1))


@pytest.mark.parametrize(
    ("preset", "millions"), [("sweep-0.2m", 0.2), ("sweep-1m", 1), ("sweep-4m", 4), ("sweep-16m", 16)]
)
def test_sweep_sizes_are_about_what_their_names_say(preset: str, millions: float) -> None:
    assert num_parameters(shape(preset)) / 1e6 == pytest.approx(millions, rel=0.1)


def test_published_sizes() -> None:
    assert num_parameters(shape("t5-small")) == 60_506_624
    assert num_parameters(shape("t5-base")) == 222_903_552
    assert num_parameters(shape("t5-v1_1-base")) == 247_577_856


def test_vocab_size_overrides_the_preset() -> None:
    assert shape("t5-small", 700).vocab_size == 700
    assert shape("t5-small").vocab_size == 32128


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 't5-small'"):
        shape("t5-smal")


@pytest.mark.parametrize("preset", PRESETS)
def test_config_round_trips(preset: str) -> None:
    config = json.loads(json.dumps(to_hf_config(shape(preset), dropout=0.1)))
    assert from_hf_config(config) == shape(preset)
    assert T5Config(**config).decoder_start_token_id == 0


@pytest.mark.parametrize("preset", ["t5-small", "t5-v1_1-small"])
def test_config_round_trips_through_transformers(preset: str) -> None:
    config = to_hf_config(shape(preset), dropout=0.1)
    rewritten = T5Config(**{k: v for k, v in config.items() if k != "model_type"}).to_dict()
    assert from_hf_config(rewritten) == shape(preset)


def test_config_of_an_old_checkpoint_has_defaults() -> None:
    old = {"model_type": "t5", "vocab_size": 50, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    assert from_hf_config(old) == Shape(50, 8, 4, 16, 2, 2, 2, gated=False, tied=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "not 't5'"),
        ({"feed_forward_proj": "gated-silu"}, "gated-silu"),
        ({"d_ff": None}, "d_ff"),
    ],
)
def test_other_architectures_are_refused(change: dict, message: str) -> None:
    config = {**to_hf_config(shape("t5-small"), dropout=0.1), **change}
    with pytest.raises(UserError, match=message):
        from_hf_config({name: value for name, value in config.items() if value is not None}, "config.json")
