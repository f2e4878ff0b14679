"""Loads a checkpoint into an engine of another world size, ZeRO stage or precision.

Each rank reads the pieces it needs from the saved files and sets its own fragments of the weights and the optimizer's
states. Nothing is written, so no file can be left half converted.
"""

from pathlib import Path
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.train.checkpoint.slots import Slot, slots
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.zero_layout import MASTER, ZeroFiles

COUNTERS = ("global_steps", "global_samples", "skipped_steps")
"""Counters of DeepSpeed's engine."""


@torch.no_grad()
def convert(engine: Any, stage: int, checkpoint: Path, manifest: Manifest, *, regrouped: bool = False) -> None:
    """Loads a checkpoint of another layout into a DeepSpeed engine. Collective. UserError if it cannot be converted.

    regrouped: only the optimizer's groups differ.

    Weights, moments, step counts and counters come from the checkpoint; hyperparameters stay the engine's.
    """
    _refuse_unconvertible(engine, stage, checkpoint, manifest, regrouped)
    files = ZeroFiles(checkpoint, manifest)
    if stage == 3:
        engine.optimizer.checkpoint_event_prologue()  # re-shards all gathered parameters
    for slot in slots(engine, stage):
        _put(slot, slot.flat, files, MASTER)
        _set_states(engine.basic_optimizer, slot, files, checkpoint)
    if stage < 3:
        restore_weights(engine, files)
    else:
        for i in range(len(engine.optimizer.fp16_groups)):
            engine.optimizer._reassign_or_swap_out_partitioned_parameters(i)
        engine.optimizer.checkpoint_event_epilogue()
    for counter in COUNTERS:
        setattr(engine, counter, files.shared[counter])


@torch.no_grad()
def restore_weights(engine: Any, files: ZeroFiles) -> None:
    """Sets the model's weights from the masters, below stage 3, where every rank has whole weights."""
    for name, parameter in engine.module.named_parameters():
        parameter.data.copy_(files.full(name))


def _put(slot: Slot, target: Tensor, files: ZeroFiles, key: str) -> None:
    """Fills the slot in `target`, which has the layout of `slot.flat`."""
    piece = files.read(slot.name, key, slot.start, slot.start + slot.numel)
    target.view(-1)[slot.offset : slot.offset + slot.numel].copy_(piece)


def _set_states(optimizer: torch.optim.Optimizer, slot: Slot, files: ZeroFiles, checkpoint: Path) -> None:
    state = optimizer.state[slot.flat]
    for key in sorted(files.keys):
        if key not in state:
            state[key] = torch.zeros_like(slot.flat)
        _put(slot, state[key], files, key)
    for key, value in files.scalars(slot.name).items():
        if isinstance(value, Tensor) and value.numel() > 1:
            raise UserError(
                f"the optimizer's '{key}' does not have one number per weight: it cannot be resharded",
                str(checkpoint),
                "resume with the checkpoint's number of ranks and ZeRO stage",
            )
        state[key] = _step(optimizer, slot.flat, float(value)) if key == "step" else value


def place_steps(optimizer: torch.optim.Optimizer) -> None:
    """Moves every step count to the device where the optimizer expects it. torch's load_state_dict leaves it on the CPU
    if the saving optimizer was not fused; a fused one on a GPU then fails at its first step."""
    for flat, state in optimizer.state.items():
        if "step" in state:
            state["step"] = _step(optimizer, flat, float(state["step"]))


def _step(optimizer: torch.optim.Optimizer, flat: Tensor, count: float) -> Tensor | int:
    """A step count in the optimizer's form: an integer for DeepSpeed's, on the device for torch's fused ones."""
    if isinstance(optimizer, DeepSpeedCPUAdam):
        return int(count)
    device = flat.device if optimizer.param_groups[0].get("fused") else torch.device("cpu")
    return torch.tensor(count, dtype=torch.float32, device=device)


def _refuse_unconvertible(engine: Any, stage: int, checkpoint: Path, manifest: Manifest, regrouped: bool) -> None:
    """Only DeepSpeed can read states on NVMe; each stage stores fp16's loss scale in another form."""
    nvme = stage == 3 and (engine.zero_nvme_offload_optimizer() or engine.optimizer.params_in_nvme_and_cpu)
    if not nvme and manifest.precision != "fp16":
        return
    saved = f"{number_of('rank', manifest.world_size)} at ZeRO-{manifest.zero_stage}"
    hint = f"resume on {saved}" + (", or with the states in memory (zero3, zero3_offload)" if nvme else "")
    if regrouped:
        saved += ", with other groups of parameters, as an earlier version of bigchem made them"
        hint = "finish the run with the version that began it"
    what = f"saved by {saved}: cannot be converted {'for states on NVMe' if nvme else 'in fp16'}"
    raise UserError(what, str(checkpoint), hint)
