"""Models that ZeRO-3 partitions while they are made, against whole ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import run_ranks
from engines import CPU, Training
from runs import config_of
from safetensors.torch import save_file
from small_models import V1_0, V1_1, build, write

from bigchem.base.errors import UserError
from bigchem.data.step_plan import open_data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model.presets import Shape
from bigchem.model.t5 import PackedT5
from bigchem.train import model_factory


def _trained(runs: Path, data: Path, init_from: str | None, precision: str) -> tuple[dict[str, torch.Tensor], float]:
    """The fp32 weights before the first step, and that step's loss."""
    model = {"init_from": init_from} if init_from else {}
    options: dict[str, Any] = {"train": {"ds_config": "zero3", "precision": precision}, "model": model}
    training = Training(config_of(runs, data, precision, **options))
    found = training.weights(), training.gradients()
    training.engine.close()
    return found


def _made(runs: Path, data: Path, init_from: str | None) -> tuple[int, int]:
    """Elements of a made model's parameters in this rank, whole and in parts."""
    model = {"init_from": init_from} if init_from else {}
    config = config_of(runs, data, "made", train={"ds_config": "zero3"}, model=model)
    parameters: list[Any] = list(model_factory.build(config, open_data(config.data), CPU).parameters())
    return sum(p.numel() for p in parameters), sum(p.ds_tensor.numel() for p in parameters)


def _refusal(runs: Path, data: Path, folder: str) -> str:
    with pytest.raises(UserError) as refused:
        _made(runs, data, folder)
    return str(refused.value)


def _differences(runs: Path, data: Path, cases: list[tuple[str | None, str]]) -> list[str]:
    """What a model that was partitioned while it was made has otherwise than one that was built whole."""
    found, partitioning_of = [], model_factory.partitioning_of
    for case in cases:
        model_factory.partitioning_of = lambda config, device: None
        whole, loss = _trained(runs, data, *case)
        model_factory.partitioning_of = partitioning_of
        weights, again = _trained(runs, data, *case)
        assert list(weights) == list(whole)
        found += [f"{case} {name}" for name in whole if not torch.equal(weights[name], whole[name])]
        found += [f"{case} loss {loss} {again}"] if loss != again else []
    return found


def published(shape: Shape, data: Path, folder: Path) -> PackedT5:
    """A model with the data's vocabulary, and its folder."""
    model = build(replace(shape, vocab_size=Tokenizer.load(str(data / "tokenizer")).vocab_size))
    write(model, folder)
    return model


def test_parts_made_one_by_one_are_those_of_a_whole_model_bit_for_bit(small_data: Path, tmp_path: Path) -> None:
    """Fresh weights and published ones: with a tied embedding, and with a head of its own, stored in bf16."""
    tied, untied = tmp_path / "tied", tmp_path / "untied"
    published(V1_0, small_data, tied)
    weights = published(V1_1, small_data, untied).state_dict()
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, untied / "model.safetensors")
    cases = [(None, "fp32"), (None, "bf16"), (str(tied), "bf16"), (str(untied), "fp32")]
    for differing in run_ranks(_differences, 2, tmp_path, small_data, cases):
        assert differing == []


def test_a_rank_holds_its_parts_only(small_data: Path, tmp_path: Path) -> None:
    ((whole, parts), _) = run_ranks(_made, 2, tmp_path, small_data, None)
    (both,) = run_ranks(_made, 1, tmp_path, small_data, None)
    assert whole == 0
    assert 2 * parts == both[1]


def test_weights_that_rank_0_refuses_are_refused_on_every_rank(small_data: Path, tmp_path: Path) -> None:
    model = published(V1_0, small_data, tmp_path)
    torch.nn.init.constant_(model.encoder.final_layer_norm.weight, torch.nan)
    for refusal in run_ranks(_refusal, 2, tmp_path, small_data, str(write(model, tmp_path))):
        assert "encoder.final_layer_norm.weight has values that are not finite" in refusal
