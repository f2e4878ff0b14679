"""When blocks are compiled, and what a run says about it."""

from pathlib import Path
from typing import Any

import pytest
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig, TrainConfig
from bigchem.train.compiling import compiles


def compiled(tmp_path: Path, device: str, stage: int, **fields: Any) -> tuple[bool, str]:
    return compiles(config_of(tmp_path, tmp_path, "run", train=fields), device, stage)


@pytest.mark.parametrize(("device", "stage", "expected"), [("cuda", 2, True), ("cuda", 3, False), ("cpu", 2, False)])
def test_by_default_the_device_and_the_stage_decide(tmp_path: Path, device: str, stage: int, expected: bool) -> None:
    decided, why = compiled(tmp_path, device, stage)
    assert decided == expected
    assert why.startswith(f"train.compile = auto: {'on' if expected else 'off'}, because ")


@pytest.mark.parametrize("wanted", [True, False])
def test_true_and_false_decide_alone(tmp_path: Path, wanted: bool) -> None:
    assert compiled(tmp_path, "cuda", 3, compile=wanted) == (wanted, f"train.compile = {str(wanted).lower()}")
    assert compiled(tmp_path, "cpu", 2, compile=wanted)[0] == wanted


@pytest.mark.parametrize("value", ["on", 1, "true"])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="compile"):
        toml.validate(TrainConfig, {"compile": value}, "run.toml")


def test_a_configuration_keeps_its_choice(tmp_path: Path) -> None:
    for value in (True, False, "auto"):
        config = config_of(tmp_path, tmp_path, "run", train={"compile": value})
        (tmp_path / "run.toml").write_text(toml.dump(config))
        assert toml.load(RunConfig, tmp_path / "run.toml").train.compile == value
