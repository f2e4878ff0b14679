"""Shapes of T5: the published sizes, small ones for sweeps, exact parameter counts, transformers' configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.errors import UserError, unknown


@dataclass(frozen=True)
class Shape:
    """Everything that fixes the parameters of a T5.

    gated: gated GELU feed-forward (v1.1), else ReLU (v1.0). tied: the output projection is the embedding matrix and the
    decoder's output is scaled by d_model ** -0.5 (v1.0); untied models have an lm_head and no scaling (v1.1).
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    gated: bool
    tied: bool
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @property
    def inner_dim(self) -> int:
        """Width of all attention heads together; not d_model in every T5."""
        return self.num_heads * self.d_kv


def _v1_0(d_model: int, d_kv: int, d_ff: int, num_layers: int, num_heads: int, *, vocab_size: int = 32128) -> Shape:
    return Shape(vocab_size, d_model, d_kv, d_ff, num_layers, num_layers, num_heads, gated=False, tied=True)


def _v1_1(d_model: int, d_kv: int, d_ff: int, num_layers: int, num_heads: int) -> Shape:
    return Shape(32128, d_model, d_kv, d_ff, num_layers, num_layers, num_heads, gated=True, tied=False)


PRESETS: dict[str, Shape] = {
    "t5-small": _v1_0(512, 64, 2048, 6, 8),
    "t5-base": _v1_0(768, 64, 3072, 12, 12),
    "t5-large": _v1_0(1024, 64, 4096, 24, 16),
    "t5-3b": _v1_0(1024, 128, 16384, 24, 32),
    "t5-11b": _v1_0(1024, 128, 65536, 24, 128),
    "t5-v1_1-small": _v1_1(512, 64, 1024, 8, 6),
    "t5-v1_1-base": _v1_1(768, 64, 2048, 12, 12),
    "t5-v1_1-large": _v1_1(1024, 64, 2816, 24, 16),
    "t5-v1_1-xl": _v1_1(2048, 64, 5120, 24, 32),
    "t5-v1_1-xxl": _v1_1(4096, 64, 10240, 24, 64),
    # Four times the parameters a step; the names count a 512-row embedding.
    "sweep-0.2m": _v1_0(48, 16, 192, 3, 3, vocab_size=512),
    "sweep-1m": _v1_0(96, 32, 384, 4, 3, vocab_size=512),
    "sweep-4m": _v1_0(192, 32, 768, 4, 6, vocab_size=512),
    "sweep-16m": _v1_0(384, 64, 1536, 4, 6, vocab_size=512),
}


def shape(preset: str, vocab_size: int | None = None) -> Shape:
    """The shape of a preset, with the tokenizer's number of embedding rows where given.

    Raises UserError for an unknown preset.
    """
    if preset not in PRESETS:
        unknown("preset", preset, list(PRESETS), "model.preset")
    found = PRESETS[preset]
    return found if vocab_size is None else replace(found, vocab_size=vocab_size)


def num_parameters(shape: Shape) -> int:
    """Number of parameters, each counted once however often it is used."""
    d, attention = shape.d_model, 4 * shape.d_model * shape.inner_dim
    feed_forward = (3 if shape.gated else 2) * d * shape.d_ff
    encoder_layer = attention + feed_forward + 2 * d
    decoder_layer = 2 * attention + feed_forward + 3 * d
    embeddings = (1 if shape.tied else 2) * shape.vocab_size * d
    relative_bias = 2 * shape.relative_attention_num_buckets * shape.num_heads
    final_norms = 2 * d
    layers = shape.num_layers * encoder_layer + shape.num_decoder_layers * decoder_layer
    return embeddings + layers + relative_bias + final_norms


_FEED_FORWARD = {
    "relu": {"dense_act_fn": "relu", "is_gated_act": False},
    "gated-gelu": {"dense_act_fn": "gelu_new", "is_gated_act": True},
}
"""feed_forward_proj, and what newer configurations say of it besides."""

_CONFIG_FIELDS = tuple(field.name for field in fields(Shape) if field.name not in ("gated", "tied"))


MAX_NEW_TOKENS = 512
"""The protocol's longest output, for generation_config.json: transformers' own default cuts captions at 20 tokens."""


def to_hf_config(shape: Shape, dropout: float) -> dict[str, Any]:
    """The config.json that transformers' T5ForConditionalGeneration reads."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{name: getattr(shape, name) for name in _CONFIG_FIELDS},
        "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        "tie_word_embeddings": shape.tied,
        "dropout_rate": dropout,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write_configs(hf_config: Mapping[str, Any], dtype: str, folder: Path) -> None:
    """Writes config.json and generation_config.json of a model whose weights are of type float32 or bfloat16."""
    strict.write_atomically(folder / "config.json", json.dumps({**hf_config, "dtype": dtype}, indent=1))
    ids = {key: hf_config[key] for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    generation = {**ids, "max_new_tokens": MAX_NEW_TOKENS}
    strict.write_atomically(folder / "generation_config.json", json.dumps(generation, indent=1))


def from_hf_config(config: dict[str, Any], where: str | None = None) -> Shape:
    """The shape that a T5's config.json describes; keys left out have transformers' defaults.

    Raises UserError for another architecture or feed-forward.
    """
    if config.get("model_type") != "t5":
        raise UserError(f"model_type is {config.get('model_type')!r}, not 't5'", where, "use a T5 checkpoint")
    feed_forward = config.get("feed_forward_proj", "relu")
    if feed_forward not in _FEED_FORWARD:
        raise UserError(f"feed_forward_proj is {feed_forward!r}", where, f"known: {', '.join(_FEED_FORWARD)}")
    for key, implied in _FEED_FORWARD[feed_forward].items():
        if config.get(key, implied) != implied:
            what = f"feed_forward_proj is {feed_forward!r}, but {key} is {config[key]!r}"
            raise UserError(what, where, f"expected {implied!r}")
    missing = [
        name for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads") if name not in config
    ]
    if missing:
        raise UserError(f"no {', '.join(missing)} in the configuration", where, "use the checkpoint's own config.json")
    known = {name: config[name] for name in _CONFIG_FIELDS if config.get(name) is not None}
    return Shape(
        **{"num_decoder_layers": config["num_layers"], **known},
        gated=feed_forward == "gated-gelu",
        # transformers 5 writes tie_word_embeddings = true for every T5, and keeps the truth in scale_decoder_outputs.
        tied=config.get("scale_decoder_outputs", config.get("tie_word_embeddings")) is not False,
    )


def read_shape(folder: Path) -> Shape:
    """The shape of a Hugging Face folder's model; UserError if it holds no T5's config.json."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no config.json", str(folder), "give a folder written by save_pretrained") from None
    except ValueError as error:
        raise UserError(f"not JSON: {error}", str(file), "fetch or copy the folder again") from None
    if not isinstance(config, dict):
        raise UserError("not a model's configuration", str(file), "fetch or copy the folder again")
    return from_hf_config(config, str(file))
