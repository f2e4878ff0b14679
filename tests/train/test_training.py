"""Real DeepSpeed processes on the CPU: every ZeRO stage, resuming, exporting."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import run_ranks
from fake_hub import serving
from runs import config_of, losses, samples_of, train_all, train_here, transformers_greedy, transformers_loss
from small_models import V1_1, build
from transformers import T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.export import export
from bigchem.model.attention import KINDS
from bigchem.model.presets import num_parameters
from bigchem.model.weights.hf_config import from_hf_config
from bigchem.model.weights.pretrained import save_pretrained
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.zero_layout import ZeroFiles


def test_every_zero_stage_has_the_same_loss_curve(trained: dict[int, RunConfig]) -> None:
    expected = losses(trained[0])
    assert expected[-1] < expected[0]
    for stage in (1, 2, 3):
        assert losses(trained[stage]) == pytest.approx(expected, rel=1e-5)


def test_one_rank_has_the_loss_curve_of_two(trained: dict[int, RunConfig], small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "one")
    run_ranks(train_here, 1, config)
    assert losses(config) == pytest.approx(losses(trained[2]), rel=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_resumed_run_goes_on_bit_for_bit(trained: dict[int, RunConfig], stage: int) -> None:
    whole = trained[stage]
    assert losses(whole.model_copy(update={"name": f"zero{stage}-resumed"})) == losses(whole)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_exported_model_has_the_engines_loss(trained: dict[int, RunConfig], stage: int, tmp_path: Path) -> None:
    config = trained[stage]
    manifest = Manifest.read(config.run_dir / "checkpoints" / "step_00000006")
    made = export(config.run_dir, tmp_path / "model")
    loss = transformers_loss(made.model_dir, manifest.probe["sources"], manifest.probe["targets"])
    assert loss == pytest.approx(manifest.probe["loss"], rel=1e-5)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()


def test_stages_export_equal_weights(trained: dict[int, RunConfig], tmp_path: Path) -> None:
    models = {}
    for stage in (0, 3):
        export(trained[stage].run_dir, tmp_path / str(stage), step=3)
        models[stage] = T5ForConditionalGeneration.from_pretrained(tmp_path / str(stage)).state_dict()
    for name, weight in models[0].items():
        torch.testing.assert_close(models[3][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stages", [(0, 1), pytest.param((2, 3), marks=pytest.mark.slow)])
def test_bf16_keeps_fp32_masters_and_exports_them(small_data: Path, tmp_path: Path, stages: tuple[int, ...]) -> None:
    short = {"precision": "bf16", "steps": 3}
    configs = [
        config_of(tmp_path, small_data, f"bf16-{stage}", train={**short, "ds_config": f"zero{stage}"})
        for stage in stages
    ]
    run_ranks(train_all, 2, configs)
    for stage, config in zip(stages, configs, strict=True):
        export(config.run_dir, tmp_path / f"model{stage}")
        weight = T5ForConditionalGeneration.from_pretrained(tmp_path / f"model{stage}").shared.weight
        assert not torch.equal(weight, weight.bfloat16().float())


def test_the_running_mean_is_exported_where_there_is_one(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "mean", optimizer={"ema": 0.5})
    run_ranks(train_here, 1, config)
    made = export(config.run_dir, tmp_path / "mean-model", ema=True)
    files = ZeroFiles(made.checkpoint, Manifest.read(made.checkpoint))
    weight = T5ForConditionalGeneration.from_pretrained(made.model_dir).shared.weight
    assert torch.equal(weight, files.full("shared.weight", "ema"))
    assert not torch.equal(weight, files.full("shared.weight"))
    probe = Manifest.read(made.checkpoint).probe
    whole = transformers_loss(made.model_dir, probe["sources"], probe["targets"])
    assert made.ema_loss == pytest.approx(whole, rel=1e-6)
    assert made.ema_loss != made.loss
    assert f"probe loss {made.ema_loss:.6f}" in (made.model_dir / "README.md").read_text()
    with pytest.raises(UserError, match="holds no running mean"):
        export(trained[2].run_dir, tmp_path / "none", ema=True)


def test_a_run_folder_holds_what_the_design_says(trained: dict[int, RunConfig]) -> None:
    run_dir = trained[2].run_dir
    for name in ("config.toml", "git.txt", "environment.json", "metrics.jsonl", "state.json", "tokenizer"):
        assert (run_dir / name).exists(), name
    model = json.loads((run_dir / "model.json").read_text())
    assert model["attention"] == dict.fromkeys(KINDS, "torch")
    assert model["preset"] == "sweep-0.2m"
    assert model["parameters"] == num_parameters(from_hf_config(model["config"]))
    assert (model["device"], model["ranks"], model["precision"]) == ("cpu", 2, "fp32")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    tasks = ("captioning", "generation", "forward", "retrosynthesis", "actions")
    assert all(f"loss/{task}" in rows[-1] for task in tasks)
    assert json.loads((run_dir / "state.json").read_text())["state"] == "trained"


def test_tensorboard_reads_the_events(trained: dict[int, RunConfig]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained[2].run_dir / "tensorboard"))
    events.Reload()
    read = [scalar.value for scalar in events.Scalars("loss/all")]
    assert read == pytest.approx(losses(trained[2]), rel=1e-6)


def _refused(config: RunConfig) -> str:
    try:
        train_here(config)
    except UserError as error:
        return str(error)
    return ""


def test_other_data_is_refused_with_the_way_out(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "zero2", train={"steps": 9})
    shutil.copytree(trained[2].run_dir, config.run_dir)
    file = config.run_dir / "checkpoints" / "step_00000006" / "manifest.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps({**table, "data_fingerprint": "0" * 16}))
    assert "trained on data 0000000000000000" in run_ranks(_refused, 1, config)[0]


def test_training_from_a_url_through_a_cache_smaller_than_the_data_is_training_from_the_folder(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    """With a few shards at a time, on two ranks that share the cache."""
    largest = max(path.stat().st_size for path in small_data.rglob("*") if path.is_file())
    remote = {"path": f"file://{small_data}", "cache": str(tmp_path / "cache"), "cache_gb": 3 * largest / 1e9}
    config = config_of(tmp_path, small_data, "remote", data=remote)
    run_ranks(train_here, 2, config)
    assert losses(config) == losses(trained[2])
    cached = sum(path.stat().st_size for path in (tmp_path / "cache" / "files").iterdir())
    assert 0 < cached <= 3 * largest < sum(path.stat().st_size for path in small_data.rglob("*.arrow"))


def test_an_unlabelled_corpus_is_learned_beside_a_task_on_any_number_of_ranks(unlabelled: Path, tmp_path: Path) -> None:
    data = {"mixture": {"smiles_spans": 2.0, "text_spans": 1.0}}
    curves = []
    for ranks in (1, 2):
        config = config_of(tmp_path, unlabelled, f"spans{ranks}", data=data, optimizer={"lr": 3e-3})
        run_ranks(train_here, ranks, config)
        curves.append(losses(config))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert curves[0][-1] < curves[0][0]
    row = json.loads((config.run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss/smiles_spans", "loss/text_spans"} <= row.keys()


def _on_data_of_its_own(config: RunConfig, other: str) -> str:
    from torch import distributed as dist

    if dist.get_rank() == 1:
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": other})})
    return _refused(config)


def test_ranks_that_open_different_data_are_refused_all_of_them(small_data: Path, tmp_path: Path) -> None:
    """As when a folder is replaced while a job's ranks start."""
    from bigchem.base.progress import Progress
    from bigchem.data.build.pipeline import build as build_data
    from bigchem.data.build.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig

    sources = (SourceConfig(format="synthetic", split="train", rows=300, seed=5),)
    build_data(BuildConfig(sources=sources), tmp_path / "other", Progress(quiet=True), workers=1)
    config = config_of(tmp_path, small_data, "torn")
    errors = run_ranks(_on_data_of_its_own, 2, config, str(tmp_path / "other"))
    assert all("ranks opened different data" in text for text in errors)


def test_weights_of_another_tokenizer_are_refused(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    made = export(trained[2].run_dir, tmp_path / "model")
    Tokenizer.train(["another corpus altogether"] * 50, 384).save(made.model_dir)
    config = config_of(tmp_path, small_data, "other", model={"init_from": str(made.model_dir)})
    assert "were trained with another tokenizer" in run_ranks(_refused, 1, config)[0]


@pytest.mark.slow
def test_weights_of_the_hub_are_fetched_once_for_all_ranks(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake hub."""
    made = export(trained[2].run_dir, tmp_path / "hub" / "owner" / "model")
    config = config_of(tmp_path, small_data, "fetched", model={"init_from": "owner/model"}, train={"steps": 3})
    with serving(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        run_ranks(train_here, 2, config, fresh=True)
        assert set(hub.fetched.values()) == {1}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= hub.fetched.keys()
        assert losses(config)[0] < losses(trained[2])[-1]
        Tokenizer.train(["another corpus altogether"] * 50, 384).save(made.model_dir)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "another"))
        other = config.model_copy(update={"name": "other"})
        assert "were trained with another tokenizer" in run_ranks(_refused, 1, other, fresh=True)[0]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_compiled_run_has_the_same_loss_curve(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path, stage: int
) -> None:
    config = config_of(tmp_path, small_data, "compiled", train={"ds_config": f"zero{stage}", "compile": True})
    run_ranks(train_here, 1, config)
    assert losses(config) == pytest.approx(losses(trained[stage]), rel=1e-5)


def test_z_loss_and_label_smoothing_move_the_weights_and_not_what_is_logged(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "smooth", train={"label_smoothing": 0.5, "z_loss": 0.01})
    run_ranks(train_here, 1, config)
    plain, smooth = losses(trained[2]), losses(config)
    assert smooth[0] == pytest.approx(plain[0], rel=1e-6)
    assert smooth[-1] != pytest.approx(plain[-1], rel=1e-3)
    export(config.run_dir, tmp_path / "model")  # the probe's loss is transformers' plain one


@pytest.mark.thorough
def test_an_untied_model_trains_at_zero_3_from_a_saved_folder_and_is_proven(small_data: Path, tmp_path: Path) -> None:
    vocab_size = Tokenizer.load(small_data / "tokenizer").vocab_size
    save_pretrained(build(replace(V1_1, vocab_size=vocab_size)), tmp_path / "start")
    config = config_of(
        tmp_path,
        small_data,
        "untied",
        model={"init_from": str(tmp_path / "start")},
        train={"ds_config": "zero3"},
        validation={"every": 6, "split": "test", "max_rows": 4, "samples": 1},
    )
    run_ranks(train_here, 1, config)
    made = export(config.run_dir, tmp_path / "model")
    for sample in samples_of(config):
        assert sample["prediction"] == transformers_greedy(made.model_dir, sample["source"])
    assert made.loss == pytest.approx(made.recorded, rel=1e-5)
    assert json.loads((config.run_dir / "model.json").read_text())["preset"] is None
