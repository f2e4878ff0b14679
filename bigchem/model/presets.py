"""Shapes of T5: published sizes and small ones for sweeps; exact parameter counts; transformers' configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bigchem.base import atomic
from bigchem.base.errors import unknown


@dataclass(frozen=True)
class Shape:
    """Everything that determines the parameters of a T5.

    gated: gated feed-forward (v1.1), else plain (v1.0). activation: relu (v1.0), gelu_new, the tanh approximation of
    GELU (v1.1), or silu (UL2); empty: gelu_new if gated, else relu. tied: the output projection is the embedding matrix
    and the decoder's output is scaled by d_model ** -0.5 (v1.0); untied models have an lm_head and no scaling (v1.1).
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
    activation: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", self.activation or ("gelu_new" if self.gated else "relu"))

    @property
    def inner_dim(self) -> int:
        """Width of all attention heads together; in some T5s not d_model."""
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
    # Each about four times the last; the names' counts include a 512-row embedding.
    "sweep-0.2m": _v1_0(48, 16, 192, 3, 3, vocab_size=512),
    "sweep-1m": _v1_0(96, 32, 384, 4, 3, vocab_size=512),
    "sweep-4m": _v1_0(192, 32, 768, 4, 6, vocab_size=512),
    "sweep-16m": _v1_0(384, 64, 1536, 4, 6, vocab_size=512),
}


def shape(preset: str, vocab_size: int | None = None) -> Shape:
    """The shape of a preset, with vocab_size embedding rows if given; UserError for an unknown preset."""
    if preset not in PRESETS:
        unknown("preset", preset, list(PRESETS), "model.preset")
    found = PRESETS[preset]
    return found if vocab_size is None else replace(found, vocab_size=vocab_size)


def num_parameters(shape: Shape) -> int:
    """Number of parameters; shared ones count once."""
    d, attention = shape.d_model, 4 * shape.d_model * shape.inner_dim
    feed_forward = (3 if shape.gated else 2) * d * shape.d_ff
    encoder_layer = attention + feed_forward + 2 * d
    decoder_layer = 2 * attention + feed_forward + 3 * d
    relative_bias = 2 * shape.relative_attention_num_buckets * shape.num_heads
    final_norms = 2 * d
    layers = shape.num_layers * encoder_layer + shape.num_decoder_layers * decoder_layer
    return num_embeddings(shape) + layers + relative_bias + final_norms


def num_embeddings(shape: Shape) -> int:
    """Number of parameters of the token embedding and of the output projection; tied ones count once."""
    return (1 if shape.tied else 2) * shape.vocab_size * shape.d_model


FEED_FORWARD = {"relu": (False, "relu"), "gated-gelu": (True, "gelu_new"), "gated-silu": (True, "silu")}
"""feed_forward_proj -> (gated, activation)."""

_CONFIG_FIELDS = tuple(field.name for field in fields(Shape) if field.name not in ("gated", "tied", "activation"))


MAX_NEW_TOKENS = 512
"""The protocol's output limit, for generation_config.json: transformers' default would cut captions at 20 tokens."""


def to_hf_config(shape: Shape, dropout: float) -> dict[str, Any]:
    """The config.json that transformers' T5ForConditionalGeneration reads."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{name: getattr(shape, name) for name in _CONFIG_FIELDS},
        "feed_forward_proj": next(n for n, known in FEED_FORWARD.items() if known == (shape.gated, shape.activation)),
        "tie_word_embeddings": shape.tied,
        "dropout_rate": dropout,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write_configs(hf_config: Mapping[str, Any], dtype: str, folder: Path) -> None:
    """Writes config.json and generation_config.json. dtype: of the weights, float32 or bfloat16."""
    atomic.write_atomically(folder / "config.json", json.dumps({**hf_config, "dtype": dtype}, indent=1))
    ids = {key: hf_config[key] for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    generation = {**ids, "max_new_tokens": MAX_NEW_TOKENS}
    atomic.write_atomically(folder / "generation_config.json", json.dumps(generation, indent=1))
