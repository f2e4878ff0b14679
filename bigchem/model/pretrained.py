"""Weights of a Hugging Face T5 folder into our model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bigchem.errors import UserError
from bigchem.model.presets import read_shape
from bigchem.model.t5 import PackedT5
from bigchem.tasks import TRAINABLE_NAMES


def load_pretrained(
    folder: str | Path,
    dropout: float = 0.1,
    backends: Mapping[str, str] | None = None,
    *,
    checkpoint_activations: bool = False,
    num_tasks: int = len(TRAINABLE_NAMES),
) -> PackedT5:
    """A model with the shape and the weights (as fp32) of a Hugging Face T5 folder: config.json and safetensors, single
    or sharded. UserError if files are missing, or names or shapes do not fit."""
    folder = Path(folder)
    shape = read_shape(folder)
    with torch.device("meta"):
        model = PackedT5(shape, dropout, backends, checkpoint_activations=checkpoint_activations, num_tasks=num_tasks)
    weights = {name: tensor.float() for name, tensor in _read_safetensors(folder).items()}
    _drop_copies(weights, shape.tied, str(folder))
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            what = f"{name} has shape {found.get(name, 'none')}, config.json asks for {expected.get(name, 'none')}"
            raise UserError(what, str(folder), "config.json and weights must be of one checkpoint")
    model.load_state_dict(weights, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def _read_safetensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    names = (
        sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    )
    weights = {}
    for name in names:
        try:
            with safe_open(folder / name, framework="pt") as file:
                weights.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a mapping
        except (FileNotFoundError, SafetensorError) as error:
            hint = "convert other formats with transformers: from_pretrained, then save_pretrained"
            raise UserError(f"cannot read {name}: {error}", str(folder), hint) from None
    return weights


def _drop_copies(weights: dict[str, Tensor], tied: bool, where: str) -> None:
    """Removes the names under which checkpoints repeat the shared embedding, and a table that T5 never used."""
    weights.pop("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", None)
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(("lm_head.weight",) if tied else ())):
        copy = weights.pop(name, None)
        weights.setdefault("shared.weight", copy) if copy is not None else None
        if copy is not None and not torch.equal(copy, weights["shared.weight"]):
            raise UserError(f"{name} differs from shared.weight", where, "config.json says that they are tied")
