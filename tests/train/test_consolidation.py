"""Checkpoints of real engines, at every stage and world size, export to the engines' weights, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param
from distributed import run_ranks
from runs import config_of, losses, train_here
from small_models import V1_0
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.base.toml import dump
from bigchem.config import RunConfig
from bigchem.export import export
from bigchem.model.presets import to_hf_config
from bigchem.model.weights.pretrained import load_pretrained, weights_of
from bigchem.train.saving import Saver, SaveResult, TrainingPosition

STEPS = 2


def trained_and_noted(configs: list[RunConfig]) -> None:
    """Trains runs whose savers also store the engine's fp32 weights, as DeepSpeed gathers them."""
    save = Saver.save

    def noting(self: Saver, done: TrainingPosition, state: dict[str, Any], *, final: bool = False) -> SaveResult | None:
        engine = self._engine
        plain = engine.zero_stage == 0 and engine.config.train.precision == "fp32"
        weights = {
            name: (p if plain else safe_get_full_fp32_param(p)).detach().cpu().clone()
            for name, p in engine._engine.module.named_parameters()
        }
        if engine.rank == 0:
            torch.save(weights, engine.config.run_dir / "engine.pt")
        return save(self, done, state, final=final)

    Saver.save = noting  # type: ignore[method-assign]
    try:
        for config in configs:
            train_here(config)
    finally:
        Saver.save = save  # type: ignore[method-assign]


def check(cases: list[tuple[str, str]], ranks: int, data: Path, tmp_path: Path) -> None:
    """Trains and exports a run of each DeepSpeed configuration and precision, on that many ranks."""
    configs = [
        config_of(
            tmp_path,
            data,
            f"{Path(ds_config).stem}-{precision}-{ranks}",
            train={"ds_config": ds_config, "precision": precision, "steps": STEPS},
            schedule={"warmup_steps": 1},
            checkpoint={"every": STEPS},
        )
        for ds_config, precision in cases
    ]
    run_ranks(trained_and_noted, ranks, configs, timeout=900)
    for config in configs:
        expected = torch.load(config.run_dir / "engine.pt", weights_only=True)
        made = export(config.run_dir, tmp_path / f"model-{config.name}", shard_size="200KB", workers=2)
        found = dict(weights_of(made.model_dir))
        assert found.keys() == expected.keys(), config.name
        assert all(torch.equal(found[name], weight) for name, weight in expected.items()), config.name


@pytest.mark.parametrize("case", [("zero3", "bf16"), pytest.param(("zero2", "fp32"), marks=pytest.mark.thorough)])
def test_three_ranks_whose_pieces_are_padded(small_data: Path, tmp_path: Path, case: tuple[str, str]) -> None:
    check([case], 3, small_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_stage_precision_and_offload(small_data: Path, tmp_path: Path, ranks: int) -> None:
    stages = [f"zero{stage}" for stage in (1, 2, 3)]
    cases = [*product([*stages, "zero2_offload", "zero3_offload"], ["fp32", "bf16"]), ("zero0", "fp32")]
    check(cases, ranks, small_data, tmp_path)


@pytest.mark.slow
def test_large_groups_that_zero_3_keeps_in_several_tensors(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"zero_optimization": {"stage": 3, "sub_group_size": 20000}}')
    check([(str(tmp_path / "cut.json"), "fp32")], 2, small_data, tmp_path)


@pytest.mark.slow
def test_a_run_begins_with_a_model_that_was_divided_and_rounded(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    made = export(trained[3].run_dir, tmp_path / "model", bf16=True, shard_size="100KB")
    config = config_of(tmp_path, small_data, "on", train={"steps": 3})
    (tmp_path / "on.toml").write_text(dump(config))
    train = [sys.executable, "-m", "bigchem", "train", str(tmp_path / "on.toml")]
    subprocess.run([*train, "--init-from", str(made.model_dir)], check=True)
    assert losses(config)[0] < losses(trained[3])[-1] * 1.01


def foreign_checkpoint(folder: Path) -> None:
    """transformers' T5 under plain DeepSpeed, without bigchem."""
    model = T5ForConditionalGeneration(T5Config.from_dict(to_hf_config(V1_0, 0.0)))
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    }
    engine, *_ = deepspeed.initialize(model=model, config=settings)
    ids = torch.tensor([[3, 4, 1]])
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
    engine.save_checkpoint(str(folder), tag="global_step1")


@pytest.mark.slow
def test_a_t5_of_plain_deepspeed_is_refused_and_the_way_out_leads_out(tmp_path: Path) -> None:
    """zero_to_fp32 --safe_serialization fails on transformers' T5, whose embedding has four names; its .bin works."""
    theirs = tmp_path / "theirs"
    run_ranks(foreign_checkpoint, 1, theirs)
    with pytest.raises(UserError, match=r"not published by bigchem") as error:
        export(theirs, tmp_path / "out")
    assert "zero_to_fp32.py makes pytorch_model.bin" in str(error.value)
    convert = [sys.executable, "-m", "deepspeed.utils.zero_to_fp32", str(theirs), str(tmp_path / "theirs-out")]
    failed = subprocess.run([*convert, "--safe_serialization"], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "share memory" in failed.stderr or "shared tensors" in failed.stderr, failed.stderr[-2000:]
    subprocess.run(convert, capture_output=True, check=True)
    (tmp_path / "theirs-out" / "config.json").write_text(json.dumps(to_hf_config(V1_0, 0.0)))
    assert load_pretrained(tmp_path / "theirs-out").shared.weight.shape == (V1_0.vocab_size, V1_0.d_model)
