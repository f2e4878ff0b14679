from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.config import RunConfig
from bigchem.ds_config import completed, ds_config_for, refuse_on_cpu, zero_stage
from bigchem.ds_config.keys import NEEDS_CUDA

SHIPPED = sorted(p.stem for p in resources.folder("ds_configs").glob("*.json"))


def run(ds_config: str, **train: object) -> RunConfig:
    return RunConfig.model_validate({"train": {"ds_config": ds_config, "precision": "fp32", **train}})


@pytest.mark.parametrize("name", SHIPPED)
def test_deepspeed_accepts_every_shipped_file(name: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    table = ds_config_for(run(name), world_size=8)
    assert DeepSpeedConfig(table).zero_config.stage == zero_stage(table) == int(name[4])


def test_what_needs_cuda_is_told_and_refused_on_a_cpu() -> None:
    found = completed(run("zero3_plusplus"), 16)
    assert [note.split(":")[1].strip() for note in found.notes if note.startswith("never tried")] == [*NEEDS_CUDA]
    with pytest.raises(UserError, match="need CUDA, and this run is on the CPU"):
        refuse_on_cpu(found)
    refuse_on_cpu(completed(run("zero3_hpz"), 16))
    with pytest.raises(UserError, match="8 does not divide the run's 12 processes"):
        completed(run("zero3_hpz"), 12)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_hold_nothing_that_the_run_configuration_owns(name: str) -> None:
    table = json.loads(resources.find("ds_configs", name, ".json").read_text())
    assert set(table) == {"zero_optimization"}
    assert f"| {name} |" in (resources.folder("ds_configs") / "README.md").read_text()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"gradient_clipping": 5.0}, "gradient_clipping = 5.0, but optimizer.grad_clip gives 1.0"),
        ({"bf16": {"enabled": True}}, "train.precision"),
        ({"train_micro_batch_size_per_gpu": 8}, "data.micro_tokens"),
        ({"scheduler": {"type": "WarmupLR"}}, "belongs to the run configuration"),
    ],
)
def test_a_contradiction_is_refused_with_both_sides_named(
    tmp_path: Path, extra: dict[str, object], message: str
) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, **extra}))
    with pytest.raises(UserError, match=message):
        ds_config_for(run(str(tmp_path / "mine.json")), world_size=2)


@pytest.mark.parametrize(("stage", "precision"), [(0, "bf16"), (1, "bf16"), (2, "bf16"), (3, "bf16"), (2, "fp32")])
def test_bf16_is_accumulated_in_fp32_where_deepspeed_can(stage: int, precision: str) -> None:
    table = ds_config_for(run(f"zero{stage}", precision=precision), world_size=2)
    accumulated = stage > 0 and precision == "bf16"
    assert table.get("data_types") == ({"grad_accum_dtype": "fp32"} if accumulated else None)


def test_a_file_may_choose_another_type_for_accumulation(tmp_path: Path) -> None:
    stated = {"zero_optimization": {"stage": 2}, "data_types": {"grad_accum_dtype": "bf16"}}
    (tmp_path / "mine.json").write_text(json.dumps(stated))
    table = ds_config_for(run(str(tmp_path / "mine.json"), precision="bf16"), world_size=2)
    assert table["data_types"] == {"grad_accum_dtype": "bf16"}


def test_auto_and_equal_values_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"gradient_clipping": 1.0, "bf16": {"enabled": "auto"}}))
    table = ds_config_for(run(str(tmp_path / "mine.json")), world_size=2)
    assert (table["gradient_clipping"], table["bf16"]["enabled"]) == (1.0, False)


def test_a_file_that_is_no_json_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        ds_config_for(run(str(tmp_path / "mine.json")), world_size=1)
