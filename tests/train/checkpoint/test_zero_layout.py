"""Pieces of parameters are found in ZeRO's files, whatever the padding."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import saved_at_stage_3

from bigchem.train.checkpoint.zero_layout import ZeroFiles


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 11), min_size=1, max_size=4), st.sampled_from([1, 2, 3]), st.integers(1, 3), st.data())
def test_stage_3_gives_back_every_element_and_no_padding(
    sizes: list[int], world_size: int, flats: int, data: st.DataObject
) -> None:
    values = {f"w{i}": torch.rand(size, 3)[:, : 1 + i % 3] for i, size in enumerate(sizes)}
    with tempfile.TemporaryDirectory() as folder:
        files = ZeroFiles(Path(folder), saved_at_stage_3(Path(folder), values, world_size, flats))
        for name, value in values.items():
            assert torch.equal(files.full(name), value)
            assert torch.equal(files.full(name, "exp_avg"), value * 2)
            start = data.draw(st.integers(0, value.numel()))
            assert torch.equal(files.read(name, "exp_avg", start, value.numel()), value.flatten()[start:] * 2)
            assert float(files.scalars(name)["step"]) == 7
