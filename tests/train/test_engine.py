"""What Engine.load corrects after DeepSpeed and torch have loaded a checkpoint."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from distributed import run_ranks
from engines import Training
from runs import config_of

from bigchem.config import RunConfig
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.zero_layout import GROUP_NAMES
from bigchem.train.engine import Engine


def adamw(device: str, **group: Any) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW([torch.zeros(3, device=device)], lr=group.pop("lr"))
    optimizer.param_groups[0].update(group)
    return optimizer


def test_a_resumed_optimizer_keeps_its_configuration_and_finds_its_counts_on_the_device(tmp_path: Path) -> None:
    """The optimizer is fused and on another device than the checkpoint's, which was not fused and had a higher rate."""
    saved = adamw("cpu", lr=2.0, weight_decay=0.5, fused=False)
    (weight,) = saved.param_groups[0]["params"]
    saved.state[weight] = {"step": torch.tensor(7.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    optimizer = adamw("meta", lr=1.0, weight_decay=0.1, fused=True)

    def load_checkpoint(*args: object, **kwargs: object) -> tuple[str, None]:
        optimizer.load_state_dict(deepcopy(saved.state_dict()))
        return "loaded", None

    config = RunConfig.model_validate({"train": {"precision": "fp32"}})
    engine = SimpleNamespace(
        config=config,
        world_size=1,
        zero_stage=3,
        _optimizer=optimizer,
        _engine=SimpleNamespace(optimizer=optimizer, load_checkpoint=load_checkpoint),
        _group_names=[["weight"]],
    )
    torch.save({GROUP_NAMES: [["weight"]]}, tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    manifest = Manifest(7, 0, 0, 1, 3, "fp32", "adamw", "", {}, {})
    assert not Engine.load(cast("Engine", engine), tmp_path, manifest)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["fused"]) == (1.0, 0.1, True)
    (state,) = optimizer.state.values()
    assert state["step"].device == torch.device("meta")


def test_a_count_of_steps_is_not_lost_on_its_way() -> None:
    from bigchem.train.checkpoint.reshard import place_steps

    optimizer = adamw("cpu", lr=1.0, fused=True)
    (weight,) = optimizer.param_groups[0]["params"]
    optimizer.state[weight] = {"step": 7}
    place_steps(optimizer)
    assert torch.equal(optimizer.state[weight]["step"], torch.tensor(7.0))


def _losses(runs: Path, data: Path, stage: int, kernels: bool) -> list[float]:
    from bigchem.model import functional

    functional.KERNEL_DEVICES = {"cpu"} if kernels else {"cuda"}
    few = {"global_tokens": 240, "micro_tokens": 120, "max_source_tokens": 60, "max_target_tokens": 60}
    options = {"model": {"dropout": 0.1}, "train": {"ds_config": f"zero{stage}"}, "data": few}
    return Training(config_of(runs, data, f"zero{stage}", **options)).run(2)


@pytest.mark.thorough
def test_the_fused_kernels_train_at_zero_3_as_torch_does_at_zero_0(small_data: Path, tmp_path: Path) -> None:
    """Interpreted. ZeRO-3 gathers the norms' weights for kernels that also make the additions before them."""
    plain, fused = (
        run_ranks(_losses, 2, tmp_path, small_data, stage, kernels)[0] for stage, kernels in ((0, False), (3, True))
    )
    assert fused == pytest.approx(plain, rel=1e-5)
    assert fused != plain
