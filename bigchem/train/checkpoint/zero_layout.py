"""Reads DeepSpeed's files of a published checkpoint: weights and optimizer states by parameter, at any stage.

Only a file's structure is loaded; elements are read on request. A piece's location comes from the files' own metadata
(slice mappings, shapes, names by group), not from DeepSpeed's padding rules or assumptions about the groups.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.block_hashes import TAG, Blocks, CheckedFile
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.torch_zip import Place, load_structure

MASTER = "fp32"
"""Key of the weights, beside the optimizer states' keys."""
GROUP_NAMES = "bigchem_group_names"
"""Model file's key for the optimizer's parameter names by group: stage 0 stores states without names."""
OPEN_FILES = 128
"""Limit on open files: a checkpoint may have more files than a process may open."""

Shapes = dict[str, torch.Size]


@dataclass(frozen=True)
class Fragment:
    """Elements start .. start + numel of a parameter, at `offset` of each of the flat tensors.

    scalars: states that are not per element; tensors among them as Place.
    """

    start: int
    numel: int
    offset: int
    flats: Mapping[str, Place]
    scalars: Mapping[str, Any]


class ZeroFiles:
    """Reads a checkpoint's tensors by parameter name. Thread-safe.

    hashes: verify what is read, if the manifest has hashes by block. shapes: of every trained parameter. keys: of the
    per-element optimizer states ("exp_avg", ...), without MASTER. shared: the model file's table, with DeepSpeed's
    counters. UserError for files that are missing, damaged or hostile.
    """

    def __init__(self, checkpoint: Path, manifest: Manifest, *, hashes: bool = False) -> None:
        self._checkpoint = checkpoint
        digests = {checkpoint / name: digest for name, (_, digest) in manifest.files.items() if hashes}
        self._blocks = {path: Blocks(digest) for path, digest in digests.items() if digest.startswith(TAG)}
        self._fragments: dict[str, list[Fragment]] = {}
        self._opened = lru_cache(OPEN_FILES)(self._open)
        self.keys: set[str] = set()
        try:
            self.shared, self.shapes, found = _structure(checkpoint, manifest, self._load)
            for name, fragment in found:
                self._fragments.setdefault(name, []).append(fragment)
                self.keys |= fragment.flats.keys() - {MASTER}
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            what = f"its files do not have DeepSpeed's layout at ZeRO-{manifest.zero_stage}: {error!r}"
            raise UserError(what, str(checkpoint), "was it written by another version of DeepSpeed?") from error

    def _open(self, path: Path) -> CheckedFile:
        try:
            return CheckedFile(path, self._blocks.get(path))
        except FileNotFoundError:
            raise UserError("a file of the checkpoint is missing", str(path)) from None

    def _load(self, path: Path) -> dict[str, Any]:
        return load_structure(path, self._opened(path) if path in self._blocks else None)

    def full(self, name: str, key: str = MASTER) -> Tensor:
        """A parameter's weights or states, fp32, in its shape."""
        return self.read(name, key, 0, self.shapes[name].numel()).view(self.shapes[name])

    def read(self, name: str, key: str, start: int, stop: int) -> Tensor:
        """Elements start .. stop of a parameter, fp32 [stop - start]."""
        out, found = torch.empty(stop - start), 0
        for piece in self._fragments.get(name, ()):
            a, b = max(start, piece.start), min(stop, piece.start + piece.numel)
            if a < b and key in piece.flats:
                place = piece.flats[key]
                place.read_into(out[a - start : b - start], piece.offset + a - piece.start, self._opened(place.path))
                found += b - a
        if found != stop - start:
            what = f"the checkpoint holds {found} of {stop - start} elements of {name} ({key})"
            raise UserError(what, str(self._checkpoint))
        return out

    def scalars(self, name: str) -> Mapping[str, Any]:
        """A parameter's states that are not per element, such as "step"; tensors are flat."""
        return {key: self._value(value) for key, value in self._fragments[name][0].scalars.items()}

    def _value(self, value: Any) -> Any:
        if not isinstance(value, Place):
            return value
        out = torch.empty(value.numel, dtype=value.dtype)
        value.read_into(out, 0, self._opened(value.path))
        return out


def saved_groups(checkpoint: Path, manifest: Manifest) -> list[list[str]] | None:
    """The optimizer's parameter names by group at the save; None: the checkpoint does not name them."""
    groups: list[list[str]] | None = load_structure(_model_file(checkpoint, manifest.zero_stage)).get(GROUP_NAMES)
    return groups


def _model_file(checkpoint: Path, stage: int) -> Path:
    return checkpoint / f"{'zero_pp_rank_0_' if stage == 3 else ''}mp_rank_00_model_states.pt"


Found = Iterator[tuple[str, Fragment]]


def _structure(
    checkpoint: Path, manifest: Manifest, load: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any], Shapes, Found]:
    """The model file's table, the parameters' shapes, and their fragments."""
    stage = manifest.zero_stage
    model_file = _model_file(checkpoint, stage)
    shared = load(model_file)
    if stage == 0:
        return shared, *_stage0(shared, model_file)
    groups: list[dict[str, torch.Size]] = shared["param_shapes"]
    shapes = {name: shape for group in groups for name, shape in group.items()}
    prefix = "bf16_" if manifest.precision == "bf16" else ""
    names = (f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(manifest.world_size))
    files = {path: load(path)["optimizer_state_dict"] for path in (checkpoint / name for name in names)}
    return shared, shapes, _stage3(files, shapes) if stage == 3 else _stage12(files)


def _split(weights: Tensor, state: Mapping[str, Any], path: Path) -> tuple[dict[str, Place], dict[str, Any]]:
    """Splits one flat tensor's states into those with an element per element (and padding), and the rest."""
    flats, scalars = {MASTER: Place.of(weights, path)}, {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() > 0 and value.numel() >= weights.numel():
            flats[key] = Place.of(value, path)
        else:
            scalars[key] = Place.of(value, path) if isinstance(value, Tensor) else value
    return flats, scalars


def _stage0(shared: dict[str, Any], path: Path) -> tuple[Shapes, Found]:
    """Whole tensors. In fp32 the weights are the module's; otherwise the masters lie in lists, group by group."""
    groups: list[list[str]] | None = shared.get(GROUP_NAMES)
    if groups is None:
        raise UserError("does not name the optimizer's parameters: written by another version", str(path))
    table, masters = shared["optimizer"], shared["optimizer"].get("fp32_groups")
    names = [name for group in groups for name in group]
    tensors = [shared["module"][name] for name in names] if masters is None else [w for group in masters for w in group]
    states = table["state"] if masters is None else table["optimizer_state_dict"]["state"]

    def found() -> Found:
        for i, (name, weight) in enumerate(zip(names, tensors, strict=True)):
            yield name, Fragment(0, weight.numel(), 0, *_split(weight, states.get(i, {}), path))

    return {name: tensor.shape for name, tensor in zip(names, tensors, strict=True)}, found()


def _stage12(files: Mapping[Path, dict[str, Any]]) -> Found:
    """Each rank holds a contiguous piece of each group's flat tensor; its slice mappings locate the parameters."""
    reached: dict[str, int] = {}
    for path, file in files.items():
        states = file["base_optimizer_state"]["state"]
        groups = zip(file["single_partition_of_fp32_groups"], file["param_slice_mappings"], strict=True)
        for i, (flat, mapping) in enumerate(groups):
            flats, scalars = _split(flat, states.get(i, {}), path)
            for name, address in mapping.items():
                start = reached.get(name, 0)
                yield name, Fragment(start, address.numel, address.start, flats, scalars)
                reached[name] = start + address.numel


def _stage3(files: Mapping[Path, dict[str, Any]], shapes: Shapes) -> Found:
    """Each parameter is cut into world_size equal pieces, the last one padded. A rank's pieces lie in parameter order,
    continuing from one flat tensor into the next: large groups are split over several (sub_group_size)."""
    for rank, (path, file) in enumerate(files.items()):
        states = file["optimizer_state_dict"]["state"]
        tensors = enumerate(file["fp32_flat_groups"])
        flats = [(flat.numel(), *_split(flat, states.get(i, {}), path)) for i, flat in tensors]
        number, offset = 0, 0
        for name, shape in shapes.items():
            piece = -(-shape.numel() // len(files))
            if offset == flats[number][0]:
                number, offset = number + 1, 0
            _, places, scalars = flats[number]
            real = min(piece, max(0, shape.numel() - rank * piece))
            yield name, Fragment(rank * piece, real, offset, places, scalars)
            offset += piece
