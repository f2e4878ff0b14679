"""Files that torch.save wrote, without executing what they hold: whole, or their structure with the places of elements.

A file may name these classes besides plain data and tensors, and no others:
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from bigchem.base.errors import UserError

ALLOWED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
"""What DeepSpeed puts into its checkpoints."""


class StandIn:
    """An object of an allowed class, where its fields are all that is wanted: DeepSpeed takes seconds to import."""

    def __init__(self, *args: Any) -> None:
        self.args = args


@dataclass(frozen=True)
class Place:
    """Where a file holds a tensor: `numel` elements of `dtype` from byte `offset` on."""

    path: Path
    offset: int
    numel: int
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor, path: Path) -> Place:
        """Of a tensor that load_structure gave."""
        if not tensor.is_contiguous():
            raise UserError("holds a tensor that is not contiguous: DeepSpeed writes none", str(path))
        # Since torch 2.6, for tensors on the meta device: run with 2.13, read in the source of 2.11.
        storage: Any = tensor.untyped_storage()
        start = storage._checkpoint_offset + int(tensor.storage_offset()) * tensor.itemsize
        return Place(path, start, tensor.numel(), tensor.dtype)

    def read_into(self, out: Tensor, start: int, file: BinaryIO) -> None:
        """Elements start .. start + len(out), converted to the type of `out` [n]. UserError if the file ends before."""
        target = out if out.dtype == self.dtype else torch.empty(len(out), dtype=self.dtype)
        rest, at = memoryview(target.view(torch.uint8).numpy().data), self.offset + start * target.itemsize
        while rest:
            if (got := os.preadv(file.fileno(), [rest], at)) == 0:
                raise UserError("is cut off", str(self.path), "take another checkpoint")
            rest, at = rest[got:], at + got
        if target is not out:
            out.copy_(target)


def load_safely(path: Path) -> dict[str, Any]:
    """A file's content, mapped, on the CPU. UserError if it is missing, damaged, or holds anything else."""
    return _load(path, [pkgutil.resolve_name(name) for name in ALLOWED], map_location="cpu", mmap=True)


def load_structure(path: Path) -> dict[str, Any]:
    """The same without elements: tensors are on the meta device, Place.of says where theirs lie."""
    return _load(path, [(StandIn, name) for name in ALLOWED], map_location="meta")


def _load(path: Path, allowed: Sequence[Any], **how: Any) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(list(allowed)):
            table: dict[str, Any] = torch.load(path, weights_only=True, **how)
    except FileNotFoundError:
        raise UserError("a file of the checkpoint is missing", str(path)) from None
    except Exception as error:  # torch raises several kinds for damaged or hostile files
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"cannot load safely: {reason}", str(path)) from error
    return table
