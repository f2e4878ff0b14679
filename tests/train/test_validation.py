"""Validation on real ranks: the same result on any number of them, best checkpoint retained, early stopping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import run_ranks
from runs import config_of, samples_of, train_here, transformers_greedy

from bigchem.config import RunConfig
from bigchem.data.step_plan import flops_cost, open_data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.export import export
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.runs.status import run_status
from bigchem.launch.submit import submit
from bigchem.run.state import progress, read_state, write_state
from bigchem.tasks import shipped
from bigchem.train.checkpoint.best import Best, chosen
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.checkpoint.store import Manifest, published
from bigchem.train.engine import Engine, StepLoss
from bigchem.train.health.step_guard import BadStep, StepGuard
from bigchem.train.model_factory import build
from bigchem.train.validation import Validation

TASKS = tuple(shipped().scored)
VALIDATION = {"every": 1, "split": "test", "max_rows": 4, "samples": 1}


def measured(config: RunConfig) -> dict[str, Any]:
    """A validation of the fresh model on this rank."""
    data = open_data(config.data)
    model = build(config, data, torch.device("cpu"))
    engine = Engine(model, config, torch.device("cpu"), TASKS)
    cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
    found = Validation(config, engine, data, cost, Best.of(config, {})).after(1)
    assert found is not None
    return {"loss": found.loss, **found.by_task, "samples": [s.as_json() for s in found.samples]}


def measured_and_trained(config: RunConfig) -> tuple[dict[str, Any], int, int]:
    """The same at ZeRO-3, then a whole run at ZeRO-2, and the same run started again."""
    at_zero_3 = config.model_copy(update={"train": config.train.model_copy(update={"ds_config": "zero3"})})
    return measured(at_zero_3), train_here(config), train_here(config)


@pytest.fixture(scope="module")
def early(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Any]:
    """A run on two ranks whose learning rate is far too high."""
    config = config_of(
        tmp_path_factory.mktemp("early"),
        small_data,
        "early",
        train={"steps": 12},
        optimizer={"lr": 1.0},
        schedule={"kind": "constant"},
        checkpoint={"every": 100, "keep": 1},
        validation={**VALIDATION, "patience": 2},
    )
    return config, run_ranks(measured_and_trained, 2, config)


@pytest.mark.parametrize(("ranks", "ds_config"), [(1, "zero2"), pytest.param(3, "zero0", marks=pytest.mark.thorough)])
def test_any_number_of_ranks_and_any_stage_finds_the_same_losses_and_predictions(
    early: tuple[RunConfig, Any], small_data: Path, tmp_path: Path, ranks: int, ds_config: str
) -> None:
    """As two ranks at ZeRO-3."""
    config = config_of(tmp_path, small_data, "others", validation=VALIDATION, train={"ds_config": ds_config})
    found = [*(one for one, _, _ in early[1]), *run_ranks(measured, ranks, config)]
    assert len({json.dumps(one) for one in found}) == 1
    tasks = [task for task in found[0] if task not in ("loss", "samples")]
    assert found[0]["loss"] == pytest.approx(sum(found[0][task] for task in tasks) / 5, rel=1e-12)


def test_a_run_that_no_longer_improves_ends_and_its_best_checkpoint_is_what_counts(
    early: tuple[RunConfig, Any], tmp_path: Path
) -> None:
    config, results = early
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["valid_loss"] for row in rows}
    best = min(losses, key=losses.__getitem__)
    last = max(losses)
    assert last == best + 2 < config.train.steps
    assert [steps for _, *steps in results] == [[last, last]] * 2
    assert [Manifest.read(p).step for p in published(config.run_dir / "checkpoints")] == [best, last]
    assert Manifest.read(published(config.run_dir / "checkpoints")[-1]).state["validation"] == {
        "metric": "loss",
        "keep": True,
        "value": losses[best],
        "step": best,
        "since": 2,
    }
    assert export(config.run_dir, tmp_path / "model").step == best
    write_state(config.run_dir, "finished", **progress(read_state(config.run_dir)))  # as a job does after evaluation
    assert submit(config, load_profile("local")).note == "already finished: nothing to do"
    status = run_status(config.run_dir)
    assert status.early
    assert status.reason == (
        f"stopped early: loss has not improved for 2 validations; best {losses[best]:.4f} at step {best}"
    )


def test_samples_are_transformers_greedy_predictions(early: tuple[RunConfig, Any], tmp_path: Path) -> None:
    config, _ = early
    made = export(config.run_dir, tmp_path / "model")
    samples = [sample for sample in samples_of(config) if sample["step"] == made.step]
    assert [sample["task"] for sample in samples] == list(TASKS)
    assert [s["prediction"] for s in samples] == [transformers_greedy(made.model_dir, s["source"]) for s in samples]


VALUES = {2: 3.0, 4: 2.0, 6: 5.0, 8: 4.0, 9: 4.5}
"""Validation losses in `with_values`, by step."""


def with_values(config: RunConfig, cannot_write: int | None, bad: tuple[int, ...]) -> str:
    """Trains with validation losses VALUES, one checkpoint that cannot be written, and non-finite losses at `bad`."""
    seen = iter(VALUES.values())
    judge, write = StepGuard.judge_loss, BigchemCheckpointEngine.save
    steps = iter(range(1, 100))

    def validate(self: Engine, share: Any, number: int) -> StepLoss:
        counts = torch.tensor([1.0] + [0.0] * (len(TASKS) - 1))
        return StepLoss(counts * next(seen), counts, TASKS)

    def judge_loss(self: StepGuard, loss: float) -> BadStep | None:
        return judge(self, float("nan") if next(steps) in bad else loss)

    def save(self: BigchemCheckpointEngine, state_dict: dict[str, Any], path: str) -> None:
        if Path(path).parent.name.startswith(f"step_{cannot_write or 0:08d}"):
            Path(path).symlink_to("/dev/full")
        write(self, state_dict, path)

    Engine.validate, StepGuard.judge_loss, BigchemCheckpointEngine.save = validate, judge_loss, save  # type: ignore[method-assign]
    train_here(config)
    checkpoints = config.run_dir / "checkpoints"
    names = " ".join(p.name for p in published(checkpoints))
    return f"{names}; best {chosen(checkpoints).name}"  # type: ignore[union-attr]


def all_with_values(cases: list[tuple[RunConfig, int | None, tuple[int, ...]]]) -> list[str]:
    """`with_values` of several runs, one after another."""
    patched = Engine.validate, StepGuard.judge_loss, BigchemCheckpointEngine.save
    results = []
    for case in cases:
        results.append(with_values(*case))
        Engine.validate, StepGuard.judge_loss, BigchemCheckpointEngine.save = patched  # type: ignore[method-assign]
    return results


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_best_is_the_best_that_was_published(small_data: Path, tmp_path: Path) -> None:
    """If the checkpoint of the lowest loss cannot be written, or falls among bad steps, the previous best stays."""
    configs = [
        config_of(
            tmp_path,
            small_data,
            name,
            train={"steps": 9},
            checkpoint={"every": 100, "keep": 1, "async_save": name.endswith("later")},
            validation={**VALIDATION, "every": 2, "samples": 0},
        )
        for name in ("sound", "full", "bad", "full-later")
    ]
    cases = list(zip(configs, (None, 4, None, 4), ((), (), (4,), ()), strict=True))
    ((sound, full, bad, full_later),) = run_ranks(all_with_values, 1, cases)
    assert sound == "step_00000004 step_00000009; best step_00000004"
    assert full == bad == full_later == "step_00000002 step_00000009; best step_00000002"
