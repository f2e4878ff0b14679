"""Reads files of torch.save without executing them: whole, or the structure with the elements' offsets."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.train.checkpoint.block_hashes import CheckedFile

ALLOWED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
"""The only classes a file may name besides plain data and tensors: those in DeepSpeed's checkpoints."""


class StandIn:
    """Replaces an object of an allowed class where only its fields matter: DeepSpeed takes seconds to import."""

    def __init__(self, *args: Any) -> None:
        self.args = args


@dataclass(frozen=True)
class Place:
    """A tensor's place in a file: `numel` elements of `dtype` from byte `offset`."""

    path: Path
    offset: int
    numel: int
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor, path: Path) -> Place:
        """The place of a tensor from load_structure."""
        if not tensor.is_contiguous():
            raise UserError("holds a tensor that is not contiguous, which DeepSpeed never writes", str(path))
        # Since torch 2.6, for meta tensors. Run with 2.13; for 2.11 only the source was read.
        storage: Any = tensor.untyped_storage()
        start = storage._checkpoint_offset + int(tensor.storage_offset()) * tensor.itemsize
        return Place(path, start, tensor.numel(), tensor.dtype)

    def read_into(self, out: Tensor, start: int, file: CheckedFile) -> None:
        """Reads elements start .. start + len(out) into `out` [n], converted to its dtype. UserError as of
        CheckedFile."""
        target = out if out.dtype == self.dtype else torch.empty(len(out), dtype=self.dtype)
        file.read_at(memoryview(target.view(torch.uint8).numpy().data), self.offset + start * target.itemsize)
        if target is not out:
            out.copy_(target)


def load_safely(path: Path) -> dict[str, Any]:
    """A file's content, memory-mapped, on the CPU. UserError if it is missing, damaged, or names other classes."""
    return _load(path, [pkgutil.resolve_name(name) for name in ALLOWED], map_location="cpu", mmap=True)


def load_structure(path: Path, checked: CheckedFile | None = None) -> dict[str, Any]:
    """The same without elements: tensors are on the meta device, and Place.of locates their elements. checked: the
    file, to verify what is read of it."""
    return _load(path, [(StandIn, name) for name in ALLOWED], checked, map_location="meta")


def _load(path: Path, allowed: Sequence[Any], checked: Any = None, **options: Any) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(list(allowed)):
            table: dict[str, Any] = torch.load(checked or path, weights_only=True, **options)
    except FileNotFoundError:
        raise UserError("a file of the checkpoint is missing", str(path)) from None
    except UserError:
        raise
    except Exception as error:  # torch raises several types for damaged or hostile files
        raise UserError(f"cannot load safely: {one_line(error)}", str(path)) from error
    return table
