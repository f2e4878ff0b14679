import json

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.model.presets import PRESETS, Shape, num_parameters, shape, to_hf_config
from bigchem.model.weights.hf_config import from_hf_config


def transformers_parameters(config: dict) -> int:
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(**{k: v for k, v in config.items() if k != "model_type"}))
    # transformers 5 always ties at construction; lm_head is counted if the checkpoint has a separate one.
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


def published(d_model: int, d_kv: int, d_ff: int, layers: int, heads: int, **more: object) -> dict:
    """A config.json as on the hub, without some keys that do not affect the shape."""
    sizes = {"d_model": d_model, "d_kv": d_kv, "d_ff": d_ff, "num_layers": layers, "num_heads": heads}
    common = {"model_type": "t5", "vocab_size": 32128, "relative_attention_num_buckets": 32, "initializer_factor": 1.0}
    return {**common, **sizes, "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "is_encoder_decoder": True, **more}


GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "output_past": True}
NEWER = {"dense_act_fn": "gelu_new", "is_gated_act": True, "relative_attention_max_distance": 128, "use_cache": True}
PUBLISHED = {
    # The first checkpoints have neither feed_forward_proj nor untied embeddings.
    "google-t5/t5-small": (published(512, 64, 2048, 6, 8, n_positions=512), "t5-small", 60_506_624),
    "google-t5/t5-base": (published(768, 64, 3072, 12, 12, n_positions=512), "t5-base", 222_903_552),
    "google-t5/t5-large": (published(1024, 64, 4096, 24, 16, n_positions=512), "t5-large", 737_668_096),
    "google-t5/t5-3b": (published(1024, 128, 16384, 24, 32, n_positions=512), "t5-3b", 2_851_598_336),
    "google-t5/t5-11b": (published(1024, 128, 65536, 24, 128, n_positions=512), "t5-11b", 11_307_321_344),
    "google/t5-v1_1-small": (
        published(512, 64, 1024, 8, 6, num_decoder_layers=8, **GATED),
        "t5-v1_1-small",
        76_961_152,
    ),
    "google/t5-v1_1-base": (published(768, 64, 2048, 12, 12, **GATED), "t5-v1_1-base", 247_577_856),
    "google/t5-v1_1-large": (published(1024, 64, 2816, 24, 16, **GATED), "t5-v1_1-large", 783_150_080),
    "google/t5-v1_1-xl": (published(2048, 64, 5120, 24, 32, **GATED), "t5-v1_1-xl", 2_849_757_184),
    "google/t5-v1_1-xxl": (published(4096, 64, 10240, 24, 64, **GATED), "t5-v1_1-xxl", 11_135_332_352),
    "google/flan-t5-base": (published(768, 64, 2048, 12, 12, n_positions=512, **GATED), "t5-v1_1-base", 247_577_856),
    "google/flan-t5-xl": (published(2048, 64, 5120, 24, 32, **GATED, **NEWER), "t5-v1_1-xl", 2_849_757_184),
    "laituan245/molt5-base": (
        published(768, 64, 2048, 12, 12, **GATED, gradient_checkpointing=False),
        "t5-v1_1-base",
        247_577_856,
    ),
    "GT4SD/multitask-text-and-chemistry-t5-base-augm": (
        published(
            768,
            64,
            3072,
            12,
            12,
            n_positions=512,
            dense_act_fn="relu",
            is_gated_act=False,
            feed_forward_proj="relu",
            num_decoder_layers=12,
        ),
        "t5-base",
        222_903_552,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_the_presets(name: str) -> None:
    config, preset, parameters = PUBLISHED[name]
    assert from_hf_config(config) == shape(preset)
    assert num_parameters(shape(preset)) == parameters == transformers_parameters(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "not 't5'"),
        ({"feed_forward_proj": "gated-tanh"}, "gated-tanh"),
        ({"dense_act_fn": "gelu"}, 'but dense_act_fn is "gelu"'),
        ({"is_gated_act": True}, "but is_gated_act is true"),
        ({"d_ff": None}, "d_ff"),
    ],
)
def test_other_architectures_are_refused(change: dict, message: str) -> None:
    config = {**to_hf_config(shape("t5-small"), dropout=0.1), **change}
    with pytest.raises(UserError, match=message):
        from_hf_config({name: value for name, value in config.items() if value is not None}, "config.json")
