"""DeepSpeed files as users have them: refused before the queue, by key, or read as written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import ACCEPTED, REFUSED

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.ds_config import Completed, completed
from bigchem.ds_config.by_deepspeed import check_with_deepspeed
from bigchem.ds_config.checking import checked
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.keys import BF16, FP16, OFFLOAD_OPTIMIZER, OFFLOAD_PARAM, TOP, ZERO, ZERO_ALIASES


def of(table: Any, folder: Path, world_size: int = 2) -> Completed:
    (folder / "mine.json").write_text(table if isinstance(table, str) else json.dumps(table))
    run = RunConfig.model_validate({"train": {"ds_config": str(folder / "mine.json")}})
    return completed(run, world_size)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_its_key(name: str, tmp_path: Path) -> None:
    table, words = REFUSED[name]
    with pytest.raises(UserError) as error:
        of(table, tmp_path)
    for phrase in words:
        assert phrase in str(error.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_is_read_as_it_says_and_deepspeed_takes_it(name: str, tmp_path: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    table, notes = ACCEPTED[name]
    found = of(table, tmp_path)
    for words in notes:
        assert any(words in note for note in found.notes)
    assert notes or all(note.startswith("derived") for note in found.notes)
    assert '"auto"' not in json.dumps(found.table)
    stated = table["zero_optimization"]
    for key, value in DeepSpeedConfig(found.table).zero_config.model_dump(by_alias=True).items():
        if not isinstance(value, dict) and stated.get(key) not in (None, "auto"):
            assert value == stated[key] or any("without effect" in note and key in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a list, not an object"),
        ('"zero2"', "a string, not an object"),
        ("null", "null, not an object"),
        ("{} {}", "not JSON"),
        ('{"zero_optimization": {"stage": 2,}}', "no comma before a closing bracket"),
        ('{"zero_optimization": {"stage": 2} // mine\n}', "JSON has no comments"),
        ('{"zero_optimization": {"stage": 2, "stage": 3}}', "duplicate key 'stage'"),
        ('{"gradient_clipping": NaN}', "NaN is not a JSON number"),
        ('{"gradient_clipping": 1e999}', "1e999 is beyond a float's range"),
        ('{"zero_optimization": {"reduce_bucket_size": Infinity}}', "Infinity is not a JSON number"),
        ('{"zero_optimization": {"reduce_bucket_size": 1e400}}', "beyond a float's range"),
        ('{"zero_optimization": {"reduce_bucket_size": ' + "9" * 5000 + "}}", "an integer of 5,000 digits"),
        ('{"zero_optimization": {"reduce_bucket_size": ' + "9" * 400 + "}}", "an integer of 400 digits"),
        ("[" * 100_000, "not"),
        ('{"x": ' * 100_000, "not"),
        ('{"' + "x" * 500_000 + '": 1}', "unknown key"),
        (" " * (1 << 20) + "{}", "more than 1,048,576 bytes"),
    ],
    ids=range(17),
)
def test_a_file_that_is_no_bounded_json_object_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        of(text, tmp_path)
    assert len(str(error.value)) < 1000


def test_bytes_that_are_no_utf8_are_refused_and_a_mark_of_utf8_is_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    run = RunConfig.model_validate({"train": {"ds_config": str(file)}})
    file.write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(UserError, match=r"looks like UTF-16\nnext: save it as UTF-8"):
        completed(run, 1)
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8: invalid start byte at byte 7"):
        completed(run, 1)
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert completed(run, 1).table["gradient_clipping"] == 1.0


@pytest.mark.parametrize("table", [{}, {"zero_optimization": {}}])
def test_a_file_without_a_stage_is_noted_as_zero_0(table: Any, tmp_path: Path) -> None:
    assert of(table, tmp_path).notes == ("no zero_optimization.stage: ZeRO-0",)
    assert not of({"zero_optimization": {"stage": 0}}, tmp_path).notes


def test_the_table_knows_every_key_of_deepspeeds_classes_with_its_default() -> None:
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )

    removed = {"mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param"}
    classes = [
        (DeepSpeedZeroConfig, ZERO, removed),
        (DeepSpeedZeroOffloadParamConfig, OFFLOAD_PARAM, set()),
        (DeepSpeedZeroOffloadOptimizerConfig, OFFLOAD_OPTIMIZER, set()),
        (DeepSpeedBF16Config, BF16, set()),
        (DeepSpeedFP16Config, FP16, set()),
    ]
    for kind, keys, gone in classes:
        theirs = {field.alias or name: field.default for name, field in kind.model_fields.items()}
        assert theirs.keys() | gone == keys.keys()
        for name, default in theirs.items():
            if keys[name].inside is None and keys[name].default not in (None, False):
                assert default == keys[name].default, name
    aliases = {name: field.alias for name, field in DeepSpeedZeroConfig.model_fields.items() if field.alias}
    assert aliases.items() <= ZERO_ALIASES.items()


def test_the_table_knows_every_section_that_deepspeed_has_removed() -> None:
    from deepspeed.runtime import config

    assert config._REMOVED_TOP_LEVEL_CONFIG_KEYS.keys() <= TOP.keys()
    assert config._REMOVED_ZERO_CONFIG_KEYS.keys() <= ZERO.keys()


@pytest.mark.heavy
def test_deepspeed_itself_is_asked_about_a_file_of_ones_own_and_not_about_a_shipped_one(tmp_path: Path) -> None:
    found = of({"zero_optimization": {"stage": 2}}, tmp_path)
    assert check_with_deepspeed(found) is None
    with pytest.raises(UserError, match=r"DeepSpeed refuses it.*stage"):
        check_with_deepspeed(Completed({**found.table, "zero_optimization": {"stage": 7}}, (), found.path))
    shipped = completed(RunConfig.model_validate({"train": {"ds_config": "zero3"}}), 2)
    assert check_with_deepspeed(Completed({"nonsense": 1}, (), shipped.path)) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["auto", "cpu", "3", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*ZERO, "enabled"]), inner, max_size=3),
    max_leaves=4,
)
SECTION = st.dictionaries(st.sampled_from([*ZERO, *ZERO_ALIASES, *OFFLOAD_PARAM]), VALUES, max_size=6)


@settings(max_examples=300, deadline=None)
@given(zero=SECTION | VALUES, top=st.dictionaries(st.sampled_from([*TOP, "zero"]), VALUES, max_size=4))
def test_whatever_a_table_holds_it_is_refused_or_deepspeeds_classes_take_it(zero: Any, top: dict[str, Any]) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    found = Findings()
    table = checked({**top, "zero_optimization": zero}, found)
    if not found.mistakes:
        DeepSpeedZeroConfig(**table.get("zero_optimization", {}))
