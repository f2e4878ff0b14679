"""A Hugging Face folder's config.json: fields that affect the function are applied, or refused by name. Pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import shown
from bigchem.base.json_kinds import Kind, WrongError, number, whole
from bigchem.model.presets import FEED_FORWARD, Shape

SUPPORTED = "supported: T5, T5 v1.1, Flan-T5, MolT5, UL2 and mT5"
TYPES: Mapping[str, str] = {"t5": "relu", "mt5": "gated-gelu"}
"""model_type -> its default feed_forward_proj."""
UNSUPPORTED = {
    "umt5": "every layer has its own relative-position bias",
    "t5gemma": "its layers are Gemma's",
    "t5gemma2": "its layers are Gemma's",
    "longt5": "its attention is local",
    "switch_transformers": "its layers are mixtures of experts",
}
"""Relatives of T5, and why they are not supported."""

SIZES: Mapping[str, Kind] = {
    "vocab_size": whole(3, 1 << 24),
    "d_model": whole(1, 1 << 17),
    "d_kv": whole(1, 1 << 14),
    "d_ff": whole(1, 1 << 20),
    "num_layers": whole(1, 1024),
    "num_heads": whole(1, 4096),
}
OPTIONAL: Mapping[str, Kind] = {
    "num_decoder_layers": whole(1, 1024),
    "relative_attention_num_buckets": whole(4, 1 << 16),
    "relative_attention_max_distance": whole(2, 1 << 24),
    "layer_norm_epsilon": number(0.0, 1.0),
}
ALIASES = {
    "hidden_size": "d_model",
    "head_dim": "d_kv",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}
_IDS = "bigchem's tokenizers and decoders have"
FIXED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "pad_token_id": ((0,), f"{_IDS} pad 0"),
    "eos_token_id": ((1, [1]), f"{_IDS} the end token 1"),
    "decoder_start_token_id": ((0,), f"{_IDS} 0 as the first input token"),
    "is_encoder_decoder": ((True,), "the model must have an encoder and a decoder"),
    "is_decoder": ((False,), "the model must have an encoder and a decoder"),
    "pruned_heads": (({},), "all heads are computed"),
    "chunk_size_feed_forward": ((0,), "feed-forward layers are computed whole"),
    "quantization_config": ((), "weights are read as fp32: save the model without quantization"),
    "forced_bos_token_id": ((), "forced tokens are not supported"),
    "forced_eos_token_id": ((), "forced tokens are not supported"),
}
"""Fields whose other values would mean another function: the allowed values (or null), and why."""


def from_hf_config(config: Mapping[str, Any], where: str | None = None) -> Shape:
    """The shape that a T5's config.json describes; missing keys have transformers' defaults.

    UserError naming every field that is wrong, or whose value means a function other than bigchem's.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in TYPES:
        why = UNSUPPORTED.get(kind, "not a T5") if isinstance(kind, str) else "not a T5"
        raise UserError(f"model_type is {shown(kind)}, not 't5' or 'mt5': {why}", where, SUPPORTED)
    mistakes: list[str] = []
    missing = [name for name in SIZES if config.get(name) is None]
    if missing:
        mistakes.append(f"{', '.join(missing)}: missing")
    sizes = _sizes(config, mistakes)
    feed_forward = _feed_forward(config, kind, mistakes)
    scaled = _scaled(config, kind, mistakes)
    differing = [name for name in FIXED if _differs(name, config)]
    mistakes += [f"{name} is {shown(config[name])}: {FIXED[name][1]}" for name in differing]
    others = [name for name in differing if FIXED[name][1].startswith(_IDS)]
    if mistakes:
        unusable = "this checkpoint's special token ids are not T5's: it cannot be used"
        hint = unusable if others else "use the checkpoint's own config.json"
        raise UserError("; ".join(mistakes), where, f"{hint}; {SUPPORTED}")
    gated, activation = FEED_FORWARD[feed_forward]
    layers = {"num_decoder_layers": sizes["num_layers"]}
    return Shape(**{**layers, **sizes}, gated=gated, activation=activation, tied=scaled)


def read_shape(folder: Path) -> Shape:
    """The shape of a Hugging Face folder's model; UserError without a T5's config.json, or if generation uses other ids
    than ours."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError("no config.json", str(folder), "give a folder written by save_pretrained")
    shape = from_hf_config(json_file.load_config(file, '{"model_type": "t5", "d_model": 512, ...}'), str(file))
    generation = folder / "generation_config.json"
    if generation.is_file():
        _check_generation(generation)
    return shape


def _check_generation(file: Path) -> None:
    table = json_file.load_config(file, '{"decoder_start_token_id": 0}')
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id"):
        if _differs(name, table):
            hint = "use a checkpoint with T5's ids"
            raise UserError(f"{name} is {shown(table[name])}: {FIXED[name][1]}", str(file), hint)


def _differs(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a field of FIXED has another value."""
    value = config.get(name)
    return value is not None and not any(type(value) is type(v) and value == v for v in FIXED[name][0])


def _sizes(config: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for name, kind in {**SIZES, **OPTIONAL}.items():
        if config.get(name) is not None:
            _add(sizes, name, config[name], kind, mistakes)
    for name, ours in ALIASES.items():
        if name in config and ours in sizes and config[name] != sizes[ours]:
            mistakes.append(f"{name} is {shown(config[name])}, but {ours} is {sizes[ours]}")
    buckets = sizes.get("relative_attention_num_buckets", 32)
    if sizes.get("relative_attention_max_distance", 128) <= buckets // 2:
        mistakes.append(f"relative_attention_max_distance: must be more than half of the {buckets} buckets")
    return sizes


def _add(sizes: dict[str, Any], name: str, value: Any, kind: Kind, mistakes: list[str]) -> None:
    try:
        sizes[name] = kind(value)
    except WrongError as error:
        mistakes.append(f"{name} is {shown(value)}: it {error}")


def _feed_forward(config: Mapping[str, Any], model_type: str, mistakes: list[str]) -> str:
    name = config.get("feed_forward_proj")
    name = TYPES[model_type] if name is None else name
    if not isinstance(name, str) or name not in FEED_FORWARD:
        mistakes.append(f"feed_forward_proj is {shown(name)}: known: {', '.join(FEED_FORWARD)}")
        return "relu"
    gated, activation = FEED_FORWARD[name]
    for key, implied in (("is_gated_act", gated), ("dense_act_fn", activation)):
        if config.get(key) is not None and config[key] != implied:
            found = f"{key} is {shown(config[key])}: expected {shown(implied)}"
            mistakes.append(f"feed_forward_proj is {shown(name)}, but {found}")
    return name


def _scaled(config: Mapping[str, Any], model_type: str, mistakes: list[str]) -> bool:
    """Whether the decoder's output is scaled by d_model ** -0.5, as when the projection is the embedding.

    transformers 5 writes tie_word_embeddings = true for every T5; scale_decoder_outputs has the actual value. mT5 is
    never scaled.
    """
    stated = {name: config.get(name) for name in ("scale_decoder_outputs", "tie_word_embeddings")}
    for name, value in stated.items():
        if value is not None and not isinstance(value, bool):
            mistakes.append(f"{name} is {shown(value)}: should be true or false")
    if model_type == "mt5":
        return False
    scale = stated["scale_decoder_outputs"]
    return (stated["tie_word_embeddings"] if scale is None else scale) is not False
