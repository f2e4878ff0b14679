"""Writes safetensors files as a stream, without holding a whole tensor.

The safetensors library needs all tensors of a file in memory. The format is 8 bytes with the length of a JSON header,
the header (dtype, shape and offsets of each tensor), and the data
(https://github.com/huggingface/safetensors#format). The library reads every file back in the proof.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.hashed_file import HashedFile

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
"""Supported dtypes and their names in the format."""
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
"""Decimal, as in transformers and huggingface_hub."""
ALIGNMENT = 8
"""The data begins at a multiple of this."""


@dataclass(frozen=True)
class Shard:
    """A file and the names of its tensors, in data order."""

    file: str
    tensors: tuple[str, ...]


def read_size(text: str) -> int:
    """Bytes of a size such as 5GB or 200MB. UserError if it is not one."""
    number, unit = text[:-2], text[-2:].upper()
    if unit not in UNITS or not number.isascii() or not number.isdigit() or int(number) == 0:
        raise UserError(f"'{text}' is not a size", "--shard-size", "for example 5GB or 200MB")
    return int(number) * UNITS[unit]


def divide(shapes: Mapping[str, torch.Size], dtype: torch.dtype, size: int) -> list[Shard]:
    """Divides parameters over files of at most `size` bytes, or one parameter, with transformers' file names."""
    from huggingface_hub import split_state_dict_into_shards_factory
    from huggingface_hub.constants import SAFETENSORS_WEIGHTS_FILE_PATTERN

    split = split_state_dict_into_shards_factory(
        {name: shape.numel() * dtype.itemsize for name, shape in shapes.items()},
        get_storage_size=lambda number: number,
        filename_pattern=SAFETENSORS_WEIGHTS_FILE_PATTERN,
        max_shard_size=size,
    )
    return [Shard(file, tuple(names)) for file, names in split.filename_to_tensors.items()]


def index(shards: Sequence[Shard], shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> dict[str, Any]:
    """Content of model.safetensors.index.json."""
    parameters = sum(shape.numel() for shape in shapes.values())
    return {
        "metadata": {"total_parameters": parameters, "total_size": parameters * dtype.itemsize},
        "weight_map": {name: shard.file for shard in shards for name in shard.tensors},
    }


def write_shard(
    path: Path,
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype,
    pieces: Iterable[Tensor],
    progress: Callable[[int], object],
) -> tuple[int, str]:
    """Writes the tensors of `shapes`, in that order, from consecutive pieces of their elements, rounded to `dtype`.
    Returns the file's size and sha256; the caller fsyncs it. progress: called with the bytes written since its last
    call."""
    # The page cache keeps the file for the proof.
    with HashedFile(path, hashlib.sha256(), direct=False, sync=False) as file:
        file.write(_header(shapes, dtype))
        for piece in pieces:
            progress(file.write(piece.to(dtype).view(torch.uint8).numpy().data))
    return file.size, file.digest


def _header(shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> bytes:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + shape.numel() * dtype.itemsize
        table[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
