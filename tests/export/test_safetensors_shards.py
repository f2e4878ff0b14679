"""Safetensors written piece by piece: the library reads them and would divide them the same way."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from bigchem.base.errors import UserError
from bigchem.export.shards import INDEX, divide, index, read_size, write_shard

TYPES = st.sampled_from([torch.float32, torch.bfloat16])
SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=5)


@given(
    sizes=st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=5),
    dtype=TYPES,
    piece=st.integers(1, 50),
)
def test_the_library_reads_what_was_written_piece_by_piece(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], dtype: torch.dtype, piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.safetensors"
    values = {f"w{i}": torch.randn(shape) for i, shape in enumerate(sizes)}
    shapes = {name: value.shape for name, value in values.items()}
    written: list[int] = []
    pieces = (part for value in values.values() for part in value.flatten().split(piece))
    size, sha256 = write_shard(path, shapes, dtype, pieces, written.append)
    content = path.read_bytes()
    assert (size, sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(written) == sum(value.numel() for value in values.values()) * dtype.itemsize
    assert int.from_bytes(content[:8], "little") % 8 == 0
    read = load_file(path)
    assert read.keys() == values.keys()
    assert all(torch.equal(read[name], value.to(dtype)) for name, value in values.items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # required by transformers


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8), limit=st.integers(1, 3))
def test_files_and_index_are_those_of_huggingface_hub(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("theirs")
    values = {f"w{i}": torch.zeros(size) for i, size in enumerate(sizes)}
    save_torch_state_dict(values, folder, max_shard_size=limit * 1000)
    shapes = {name: value.shape for name, value in values.items()}
    shards = divide(shapes, torch.float32, limit * 1000)
    assert sorted(shard.file for shard in shards) == sorted(path.name for path in folder.glob("*.safetensors"))
    if len(shards) > 1:
        theirs, ours = json.loads((folder / INDEX).read_text()), index(shards, shapes, torch.float32)
        assert ours["weight_map"] == theirs["weight_map"]
        assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]


@pytest.mark.parametrize(("text", "size"), [("5GB", 5_000_000_000), ("200mb", 200_000_000), ("1TB", 10**12)])
def test_sizes_are_decimal(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5", "0GB", "-1GB", "1.5GB", "5GiB", "²GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a size"):
        read_size(text)
