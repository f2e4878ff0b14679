"""What DeepSpeed's files of a published checkpoint hold: weights and optimizer states by parameter, at any stage.

Files are mapped, not read: a parameter's pieces come from the disk when they are asked for, one parameter at a time.
Where a piece lies is taken from what the files say of themselves (slice mappings, shapes, names by group), not from
DeepSpeed's padding rules or from assumptions about the groups. Nothing is unpickled but plain data and four classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigchem.errors import UserError
from bigchem.train.checkpoint import Manifest

MASTER = "fp32"
"""Key of the weights themselves, beside the keys of the optimizer's states."""
GROUP_NAMES = "bigchem_group_names"
"""Where a model file lists the names of the optimizer's parameters by group: stage 0 stores states without names."""


@dataclass(frozen=True)
class Fragment:
    """Elements start .. start + numel of a parameter: they lie at `offset` of each of the flat tensors."""

    start: int
    numel: int
    offset: int
    flats: Mapping[str, Tensor]
    scalars: Mapping[str, Any]


class ZeroFiles:
    """Reads a checkpoint's tensors by parameter name.

    shapes: of every trained parameter. keys: of the per-element optimizer states ("exp_avg", ...), without MASTER.
    shared: the model file's table, with DeepSpeed's counters. UserError for files that are missing, damaged or hostile.
    """

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        self._fragments: dict[str, list[Fragment]] = {}
        stage = manifest.zero_stage
        prefix = "zero_pp_rank_0_" if stage == 3 else ""
        self.shared = load_safely(checkpoint / f"{prefix}mp_rank_00_model_states.pt")
        if stage == 0:
            self.shapes, found = _stage0(self.shared, checkpoint)
        else:
            self.shapes = {name: shape for group in self.shared["param_shapes"] for name, shape in group.items()}
            files = [load_safely(path)["optimizer_state_dict"] for path in _rank_files(checkpoint, manifest)]
            found = _stage3(files, self.shared["param_shapes"]) if stage == 3 else _stage12(files)
        self.keys: set[str] = set()
        for name, fragment in found:
            self._fragments.setdefault(name, []).append(fragment)
            self.keys |= fragment.flats.keys() - {MASTER}

    def full(self, name: str, key: str = MASTER) -> Tensor:
        """A parameter's weights or states, fp32, in its shape."""
        return self.read(name, key, 0, self.shapes[name].numel()).view(self.shapes[name])

    def read(self, name: str, key: str, start: int, stop: int) -> Tensor:
        """Elements start .. stop of a parameter, fp32 [stop - start]."""
        out, found = torch.empty(stop - start), 0
        for piece in self._fragments[name]:
            a, b = max(start, piece.start), min(stop, piece.start + piece.numel)
            if a < b and key in piece.flats:
                at = piece.offset - piece.start
                out[a - start : b - start] = piece.flats[key].view(-1)[at + a : at + b]
                found += b - a
        if found != stop - start:
            raise UserError(f"the checkpoint holds {found} of {stop - start} elements of {name} ({key})")
        return out

    def scalars(self, name: str) -> Mapping[str, Any]:
        """A parameter's states that are not per element: "step", and whatever else its optimizer keeps."""
        return self._fragments[name][0].scalars


def load_safely(path: Path) -> dict[str, Any]:
    """A file that torch.save wrote, mapped, without executing what it holds; UserError if that cannot be done."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
    try:
        with torch.serialization.safe_globals(allowed):
            table: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise UserError("a file of the checkpoint is missing", str(path)) from None
    except Exception as error:  # torch raises several kinds for damaged or hostile files
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"cannot load safely: {reason}", str(path)) from error
    return table


def _rank_files(checkpoint: Path, manifest: Manifest) -> list[Path]:
    prefix = "bf16_" if manifest.precision == "bf16" else ""
    return [checkpoint / f"{prefix}zero_pp_rank_{r}_mp_rank_00_optim_states.pt" for r in range(manifest.world_size)]


def _split(weights: Tensor, state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One flat tensor's states: those with an element for each of its elements (and padding), and the others."""
    flats, scalars = {MASTER: weights}, {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() > 0 and value.numel() >= weights.numel():
            flats[key] = value
        else:
            scalars[key] = value
    return flats, scalars


def _stage0(shared: dict[str, Any], checkpoint: Path) -> tuple[dict[str, torch.Size], Iterator[tuple[str, Fragment]]]:
    """Whole tensors. In fp32 the weights are the module's; else the masters lie in lists, group by group."""
    groups: list[list[str]] | None = shared.get(GROUP_NAMES)
    if groups is None:
        raise UserError("does not name the optimizer's parameters: written by another version", str(checkpoint))
    table, masters = shared["optimizer"], shared["optimizer"].get("fp32_groups")
    names = [name for group in groups for name in group]
    tensors = [shared["module"][name] for name in names] if masters is None else [w for group in masters for w in group]
    states = table["state"] if masters is None else table["optimizer_state_dict"]["state"]

    def found() -> Iterator[tuple[str, Fragment]]:
        for i, (name, weight) in enumerate(zip(names, tensors, strict=True)):
            yield name, Fragment(0, weight.numel(), 0, *_split(weight, states.get(i, {})))

    return {name: weight.shape for name, weight in zip(names, tensors, strict=True)}, found()


def _stage12(files: list[dict[str, Any]]) -> Iterator[tuple[str, Fragment]]:
    """Each rank holds a contiguous piece of each group's flat tensor; its slice mappings say what lies where."""
    reached: dict[str, int] = {}
    for file in files:
        states = file["base_optimizer_state"]["state"]
        groups = zip(file["single_partition_of_fp32_groups"], file["param_slice_mappings"], strict=True)
        for i, (flat, mapping) in enumerate(groups):
            flats, scalars = _split(flat, states.get(i, {}))
            for name, address in mapping.items():
                start = reached.get(name, 0)
                yield name, Fragment(start, address.numel, address.start, flats, scalars)
                reached[name] = start + address.numel


def _stage3(files: list[dict[str, Any]], shapes: list[dict[str, torch.Size]]) -> Iterator[tuple[str, Fragment]]:
    """Each parameter is cut into world_size equal pieces, the last one padded; a rank's pieces of a sub-group lie in
    parameter order."""
    for rank, file in enumerate(files):
        states = file["optimizer_state_dict"]["state"]
        for i, (flat, group) in enumerate(zip(file["fp32_flat_groups"], shapes, strict=True)):
            flats, scalars = _split(flat, states.get(i, {}))
            offset = 0
            for name, shape in group.items():
                piece = -(-shape.numel() // len(files))
                kept = min(piece, max(0, shape.numel() - rank * piece))
                yield name, Fragment(rank * piece, kept, offset, flats, scalars)
                offset += piece
