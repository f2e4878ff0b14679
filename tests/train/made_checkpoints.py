"""Published checkpoints without an engine: DeepSpeed's stage 3 files with known weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_models import V1_1
from torch import Tensor

from bigchem.export.proof import probe_loss
from bigchem.model.presets import Shape, to_hf_config
from bigchem.model.t5 import PackedT5
from bigchem.train.checkpoint.store import Manifest, publish, step_name

SHAPE = replace(V1_1, vocab_size=97)
"""The shape of most: untied."""
JUNK = -1.0
"""Value of the padding."""


def saved_at_stage_3(
    folder: Path, values: Mapping[str, Tensor], world_size: int, flats: int = 1, *, ema: bool = False
) -> Manifest:
    """Cuts each parameter into equal pieces, the last one padded; a rank's pieces lie in several flat tensors."""
    shapes = [{name: value.shape for name, value in values.items()}]
    torch.save({"param_shapes": shapes}, folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    for rank in range(world_size):
        pieces = []
        for value in values.values():
            size = -(-value.numel() // world_size)
            padded = torch.cat([value.flatten(), torch.full((size * world_size - value.numel(),), JUNK)])
            pieces.append(padded[rank * size : (rank + 1) * size])
        count = -(-len(pieces) // flats)
        groups = [torch.cat(pieces[i : i + count]) for i in range(0, len(pieces), count)]
        states = {
            i: {"exp_avg": flat * 2, "exp_avg_sq": flat * 3, "step": torch.tensor(7.0)} for i, flat in enumerate(groups)
        }
        for i, flat in enumerate(groups if ema else []):
            states[i]["ema"] = flat / 2
        table = {"fp32_flat_groups": groups, "optimizer_state_dict": {"state": states}}
        torch.save({"optimizer_state_dict": table}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return Manifest(0, 0, 0, world_size, 3, "fp32", "adamw", "", {}, {})


def weights_after(step: int, shape: Shape) -> dict[str, Tensor]:
    """The weights in a checkpoint of `made_run`."""
    torch.manual_seed(step)
    return {name: weight.detach() for name, weight in PackedT5(shape).state_dict().items()}


def made_run(run_dir: Path, shape: Shape, *steps: int, world_size: int = 2, ema: bool = False) -> Path:
    """A run folder with checkpoints after these steps. ema: with a running mean equal to half of each weight."""
    (run_dir / "tokenizer").mkdir(parents=True)
    (run_dir / "tokenizer" / "tokenizer.json").write_text("{}")
    config = to_hf_config(shape, 0.0)
    generator = torch.Generator().manual_seed(0)
    sides = ("sources", [9, 30, 1]), ("targets", [5, 1, 12])
    probe: dict[str, Any] = {
        side: [torch.randint(2, shape.vocab_size, (n,), generator=generator).tolist() for n in lengths]
        for side, lengths in sides
    }
    for step in steps:
        weights = weights_after(step, shape)
        partial = run_dir / "checkpoints" / (step_name(step) + ".partial")
        partial.mkdir(parents=True)
        saved = saved_at_stage_3(partial, weights, world_size, ema=ema)
        manifest = replace(saved, step=step, data_fingerprint="f" * 16, model=config)
        loss = probe_loss(config, weights.__getitem__, weights.keys(), probe)
        publish(partial.parent, partial, replace(manifest, probe={**probe, "loss": loss}))
    return run_dir


def copied(run_dir: Path, to: Path) -> Path:
    """A copy of a run, to damage."""
    return Path(shutil.copytree(run_dir, to))


def tampered(run_dir: Path, step: int, **fields: Any) -> None:
    """Replaces fields of a checkpoint's manifest."""
    file = run_dir / "checkpoints" / step_name(step) / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
