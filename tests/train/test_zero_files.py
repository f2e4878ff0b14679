"""Pieces of parameters are found in ZeRO's files, whatever their sizes leave over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.train.checkpoint import Manifest
from bigchem.train.zero_files import ZeroFiles

JUNK = -1.0
"""Where padding lies."""


def saved_at_stage_3(folder: Path, values: dict[str, torch.Tensor], world_size: int, flats: int = 1) -> Manifest:
    """Files as DeepSpeed writes them at stage 3: each parameter cut into equal pieces, the last ones padded; a rank's
    pieces in several flat tensors."""
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
        states = {i: {"exp_avg": flat * 2, "step": torch.tensor(7.0)} for i, flat in enumerate(groups)}
        table = {"fp32_flat_groups": groups, "optimizer_state_dict": {"state": states}}
        torch.save({"optimizer_state_dict": table}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return Manifest(0, 0, 0, world_size, 3, "fp32", "adamw", "", {}, {})


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
