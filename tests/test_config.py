from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.base import atomic, toml
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.config import RunConfig


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    file = tmp_path / "run.toml"
    file.write_text(text)
    return toml.load(RunConfig, file, overrides)


def error(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, *overrides)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_an_unknown_key_is_refused_with_the_nearest_known_name(tmp_path: Path) -> None:
    message = error(tmp_path, "[train]\nstpes = 3\n")
    assert "train: unknown key `stpes`" in message
    assert "did you mean 'steps'?" in message
    assert str(tmp_path / "run.toml") in message


def test_an_unknown_section_is_refused_with_the_nearest_known_name(tmp_path: Path) -> None:
    assert "did you mean 'schedule'?" in error(tmp_path, "[shedule]\nkind = 'linear'\n")


@pytest.mark.parametrize(
    ("text", "field", "value", "allowed"),
    [
        ("[train]\nsteps = -3", "train.steps", "-3", "greater than 0"),
        ("[train]\nprecision = 'fp8'", "train.precision", "fp8", "'fp32', 'bf16' or 'fp16'"),
        ("[train]\nsteps = 'many'", "train.steps", "many", "integer"),
        ("[model]\ndropout = 1.5", "model.dropout", "1.5", "less than or equal to 1"),
        ("name = '../evil'", "name", "../evil", "pattern"),
        ("[train]\nsteps = '300'", "train.steps", "'300'", "integer"),
        ("[train]\nlog_every = true", "train.log_every", "True", "integer"),
        ("[train]\nforce_fp16 = 'yes'", "train.force_fp16", "yes", "boolean"),
        ("[optimizer]\nlr = inf", "optimizer.lr", "inf", "finite"),
        ("[optimizer]\nbetas = [0.9, 1.5]", "optimizer.betas[1]", "1.5", "less than 1"),
    ],
)
def test_a_wrong_value_names_field_value_and_allowed_range(
    tmp_path: Path, text: str, field: str, value: str, allowed: str
) -> None:
    message = error(tmp_path, text)
    assert field in message
    assert value in message
    assert allowed in message


def test_the_longest_example_must_fit_into_a_micro_batch(tmp_path: Path) -> None:
    message = error(tmp_path, "[data]\nmicro_tokens = 1000")
    assert "max_source_tokens + max_target_tokens = 1024 > micro_tokens = 1000" in message


def test_fp16_is_refused_with_the_reason_unless_forced(tmp_path: Path) -> None:
    assert "overflow" in error(tmp_path, "[train]\nprecision = 'fp16'")
    assert load(tmp_path, "[train]\nprecision = 'fp16'\nforce_fp16 = true").train.precision == "fp16"


def test_a_run_must_be_longer_than_its_warmup(tmp_path: Path) -> None:
    assert "schedule.warmup_steps = 100 >= train.steps = 50" in error(tmp_path, "[train]\nsteps = 50")


def test_set_overrides_fields_and_is_checked_as_strictly(tmp_path: Path) -> None:
    config = load(tmp_path, "[train]\nsteps = 500", "train.steps=700", "name=other", "data.mixture={forward=2.0}")
    assert (config.train.steps, config.name, config.data.mixture) == (700, "other", {"forward": 2.0})
    assert "did you mean 'steps'?" in error(tmp_path, "", "train.stps=7")
    assert "section.key=value" in error(tmp_path, "", "train.steps")


def test_the_resolved_configuration_can_be_fed_back(tmp_path: Path) -> None:
    config = load(tmp_path, "seed = 3\n[optimizer]\nlr = 1e-5\nbetas = [0.9, 0.95]\n[model]\ninit_from = 'x'")
    (tmp_path / "again.toml").write_text(toml.dump(config))
    assert toml.load(RunConfig, tmp_path / "again.toml") == config


def test_a_file_that_is_missing_or_no_toml_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        toml.load(RunConfig, tmp_path / "none.toml")
    assert "not a TOML file" in error(tmp_path, "a = = b")


def test_every_field_is_documented() -> None:
    def walk(section: type[toml.Section]) -> None:
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, toml.Section)
            if nested:
                walk(field.annotation)
            else:
                assert field.description, f"{section.__name__}.{name} has no docstring"

    walk(RunConfig)


@pytest.mark.parametrize("recipe", ["demo", "small", "base", "large", "xl"])
def test_shipped_run_configurations_load(recipe: str) -> None:
    toml.load(RunConfig, resources.find("recipes", recipe, ".toml"))


def test_an_unknown_shipped_file_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'zero2'"):
        resources.find("ds_configs", "zero22", ".json")


def test_write_atomically_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    atomic.write_atomically(tmp_path / "a" / "b.txt", "one")
    atomic.write_atomically(tmp_path / "a" / "b.txt", "two")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]
    assert (tmp_path / "a" / "b.txt").read_text() == "two"


def test_steps_follow_from_tokens_and_the_two_must_agree(tmp_path: Path) -> None:
    sized = "[data]\nglobal_tokens = 3000\nmicro_tokens = 1600\n[train]\n"
    assert load(tmp_path, f"{sized}tokens = 30e6").train.steps == 10051
    assert load(tmp_path, f"{sized}tokens = 30e6\nsteps = 10051").train.tokens == 30e6
    assert "train.tokens = 3e+07 are 10051 steps: give one of them" in error(
        tmp_path, f"{sized}tokens = 3e7\nsteps = 9"
    )
    assert "train.tokens" in error(tmp_path, f"{sized}tokens = -3")


def test_an_override_of_the_length_replaces_the_other_way_to_give_it(tmp_path: Path) -> None:
    by_tokens = load(tmp_path, "[train]\nsteps = 500", "train.tokens=65208320")
    assert (by_tokens.train.steps, by_tokens.train.tokens) == (1000, 65208320.0)
    by_steps = load(tmp_path, "[train]\ntokens = 3e9", "train.steps=500")
    assert (by_steps.train.steps, by_steps.train.tokens) == (500, None)
