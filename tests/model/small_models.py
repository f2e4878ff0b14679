"""Small models and packed batches for the tests of model/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration

from bigchem.data import packing
from bigchem.model.attention import KINDS
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape, to_hf_config
from bigchem.model.t5 import Loss, PackedT5

V1_0 = Shape(61, 32, 16, 48, 2, 3, 2, gated=False, tied=True)
V1_1 = Shape(61, 24, 8, 40, 2, 2, 4, gated=True, tied=False)
SOURCE_LENGTHS, TARGET_LENGTHS = [13, 150, 1, 40, 7], [7, 3, 18, 140, 1]


def sequences(lengths: Sequence[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, 61, (n,), generator=generator) for n in lengths]


def pack(
    sources: list[torch.Tensor],
    targets: list[torch.Tensor],
    tasks: Sequence[int] | None = None,
    examples: Sequence[int] | None = None,
) -> PackedBatch:
    sides = [[part.numpy() for part in side] for side in (sources, targets)]
    task_ids = np.array(tasks or [0] * len(sources))
    return packing.pack(sides[0], sides[1], task_ids, None if examples is None else np.array(examples))


def build(shape: Shape, backend: str = "torch", dropout: float = 0.0, **options: bool) -> PackedT5:
    torch.manual_seed(0)
    model = PackedT5(shape, dropout, dict.fromkeys(KINDS, backend), num_tasks=7, **options)
    with torch.no_grad():  # T5's initial norms are all ones, which would hide a missing or misplaced weight
        for name, parameter in model.named_parameters():
            if name.endswith("layer_norm.weight"):
                parameter.uniform_(0.5, 1.5)
    return model


def grads(model: PackedT5, loss: Loss) -> dict[str, torch.Tensor]:
    return dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss.total, list(model.parameters())), strict=True)
    )


def write(model: PackedT5, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf_config(model.shape, dropout=0.0)))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def transformers_model(model: PackedT5, folder: Path) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration.from_pretrained(write(model, folder), attn_implementation="eager")
