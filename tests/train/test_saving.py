"""Full disks, damaged checkpoints and copies, with real ranks: no good checkpoint is lost, and no rank hangs."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from distributed import run_ranks
from runs import at_step, config_of, losses, train_all, train_here
from torch import distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.checkpoint.store import Manifest, published
from bigchem.train.saving import Saver, TrainingPosition

if TYPE_CHECKING:
    from bigchem.train.checkpoint.probe import Probe
    from bigchem.train.engine import Engine

FULL = Path("/dev/full")
"""Every write to it fails with ENOSPC, as on a full disk."""


def output_of(config: RunConfig) -> str:
    """Trains on this rank. Returns what it printed, with its UserError if it ended with one."""
    out = io.StringIO()
    with redirect_stdout(out):
        try:
            train_here(config)
        except UserError as error:
            print(f"error: {error}")
    return out.getvalue()


def outputs_of(configs: list[RunConfig]) -> list[str]:
    """`output_of` several runs, one after another."""
    return [output_of(config) for config in configs]


def on_a_disk_that_fills(config: RunConfig) -> str:
    """Rank 1 cannot write after step 4, nor rank 0 after step 6."""
    from torch import distributed as dist

    from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine

    save, full = BigchemCheckpointEngine.save, {1: "step_00000004", 0: "step_00000006"}[dist.get_rank()]

    def save_or_not(self: BigchemCheckpointEngine, state_dict: dict[str, object], path: str) -> None:
        if Path(path).parent.name.startswith(full):
            Path(path).symlink_to(FULL)
        save(self, state_dict, path)

    BigchemCheckpointEngine.save = save_or_not  # type: ignore[method-assign]
    return output_of(config)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("async_save", [False, True])
def test_a_full_disk_costs_one_checkpoint_and_stops_the_run_only_at_its_end(
    small_data: Path, tmp_path: Path, async_save: bool
) -> None:
    config = config_of(tmp_path, small_data, "full", checkpoint={"every": 2, "keep": 1, "async_save": async_save})
    first, second = run_ranks(on_a_disk_that_fills, 2, config)
    assert (
        "checkpoint after step 4 failed on rank 1: No space left on device; the last good one is step_00000002; "
        "training continues\n"
    ) in first
    for text in (first, second):
        assert "error: " in text
        assert "the checkpoint after step 6 failed on rank 0: No space left on device" in text
        assert "the last good one is step_00000002" in text
    assert len(losses(config)) == 6
    assert sorted(p.name for p in (config.run_dir / "checkpoints").iterdir()) == ["latest", "step_00000002"]


def with_a_ruined_weight(config: RunConfig) -> str:
    """The fourth step leaves NaN in the weights, although loss and gradient were good."""
    import torch

    from bigchem.train.engine import Engine

    move = Engine.optimizer_step

    def ruin(self: Engine, lr: float, *, skip: bool = False) -> float:
        norm = move(self, lr, skip=skip)
        self.taken = getattr(self, "taken", 0) + 1  # type: ignore[attr-defined]
        if self.taken == 4:  # type: ignore[attr-defined]
            with torch.no_grad():
                self._engine.module.shared.weight.fill_(float("nan"))
        return norm

    Engine.optimizer_step = ruin  # type: ignore[method-assign]
    return output_of(config)


def test_weights_that_are_not_finite_are_never_published(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "ruined", checkpoint={"every": 2})
    (text,) = run_ranks(with_a_ruined_weight, 1, config)
    assert "the weights after step 4 give the probe batch a loss of nan: not saved" in text
    assert "the last good one is step_00000002" in text
    assert [p.name for p in published(config.run_dir / "checkpoints")] == ["step_00000002"]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damaged_checkpoints_are_set_aside_for_the_one_before(trained: dict[int, RunConfig], tmp_path: Path) -> None:
    whole = trained[2]
    flipped, unreadable, lost, hopeless = (
        at_step(whole, 6, tmp_path, name) for name in ("flipped", "unreadable", "lost", "hopeless")
    )

    def at(config: RunConfig, step: int) -> Path:
        return config.run_dir / "checkpoints" / f"step_{step:08d}"

    flip(at(flipped, 6) / "mp_rank_00_model_states.pt")
    (at(unreadable, 6) / "manifest.json").write_text('{"format": 2, "st')
    shutil.rmtree(at(lost, 6))
    (at(hopeless, 6) / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    (at(hopeless, 3) / "manifest.json").unlink()
    first, second = run_ranks(outputs_of, 2, [flipped, unreadable, lost, hopeless])

    differs = "mp_rank_00_model_states.pt differs from its manifest"
    assert f"step_00000006: {differs}: continuing from step_00000003; kept as step_00000006.damaged" in first[0]
    assert "step_00000006: not a manifest" in first[1]
    assert "`latest` named step_00000006, which is missing" in first[2]
    for config in (flipped, unreadable, lost):
        assert losses(config) == losses(whole)
        assert [p.name for p in published(config.run_dir / "checkpoints")] == ["step_00000003", "step_00000006"]
        assert (config.run_dir / "checkpoints" / "latest").read_text() == "step_00000006\n"
    assert (at(flipped, 6).with_name("step_00000006.damaged") / "mp_rank_00_model_states.pt").is_file()
    assert not list((flipped.run_dir / "checkpoints").glob("*.partial"))

    for text in (first[3], second[3]):
        assert "no intact checkpoint: step_00000003.damaged, step_00000006.damaged" in text
    for step in (3, 6):
        assert (at(hopeless, step).with_name(f"step_{step:08d}.damaged") / "mp_rank_00_model_states.pt").is_file()


def lose_and_train_again(configs: list[RunConfig], copies: Path) -> list[str]:
    """Trains, removes every checkpoint and the newest copy, and trains again."""
    train_all(configs)
    for config in configs:
        shutil.rmtree(copies / config.name / "step_00000006")
        shutil.rmtree(config.run_dir / "checkpoints")
    return outputs_of(configs)


def test_runs_without_checkpoints_go_on_from_their_copies(
    small_data: Path, tmp_path: Path, trained: dict[int, RunConfig]
) -> None:
    copies = tmp_path / "copies"
    configs = [
        config_of(tmp_path, small_data, name, checkpoint={"keep": 1, "copy_to": to, "keep_every": 3})
        for name, to in (("folder", str(copies)), ("url", f"file://{copies}"))
    ]
    (texts,) = run_ranks(lose_and_train_again, 1, configs, copies)
    for config, text in zip(configs, texts, strict=True):
        assert "step_00000003 restored from" in text
        assert "from step 3" in text
        assert losses(config) == pytest.approx(losses(trained[2]), rel=1e-5)
        assert [p.name for p in published(copies / config.name)] == ["step_00000003", "step_00000006"]


class OneFile:
    """Stand-in for a one-rank engine whose checkpoint is one file."""

    rank, world_size, zero_stage, device = 0, 1, 0, torch.device("cpu")

    def evaluate(self, batch: object) -> SimpleNamespace:
        return SimpleNamespace(mean=1.0)

    def save(self, folder: Path, tag: str, *, background: bool = False) -> BigchemCheckpointEngine:
        files = BigchemCheckpointEngine([])
        files.begin(background=background)
        files.makedirs(str(folder / tag))
        files.save({"module": {}}, str(folder / tag / "weights.pt"))
        return files

    def load(self, path: Path, manifest: Manifest) -> bool:
        return False


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    """A Saver in a process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    probe = SimpleNamespace(
        batch=lambda: None, with_loss=lambda loss: {"sources": [[1]], "targets": [[1]], "loss": loss}
    )
    config = config_of(tmp_path, tmp_path, "run", checkpoint={"keep": 2})
    made = Saver(config, cast("Engine", OneFile()), cast("Probe", probe), "f" * 16, {"vocab_size": 2})
    yield made
    made.close()
    dist.destroy_process_group()


def failing(*args: object, **kwargs: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("what", ["doom_superseded", "remove_doomed"])
def test_an_error_after_a_save_is_told_and_costs_no_checkpoint(
    saver: Saver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    monkeypatch.setattr(store, what, failing)
    for step in (1, 2):
        saved = saver.save(TrainingPosition(step), {})
        assert saved.path is not None
        assert saver.newest == step
    text = capsys.readouterr().out
    expected = {
        "doom_superseded": "step_00000001 is published, but the cleanup failed: Input/output error; training continues",
        "remove_doomed": "old checkpoints cannot be removed: Input/output error; training continues",
    }
    assert expected[what] in text
    assert "checkpoint after step 2: " in text


def test_a_disk_that_does_not_give_a_file_back_leads_to_the_checkpoint_before(
    saver: Saver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        saver.save(TrainingPosition(step), {})
    hashed = store.has_digest
    monkeypatch.setattr(
        store, "has_digest", lambda path, *rest: failing() if "2" in path.parent.name else hashed(path, *rest)
    )
    assert saver.resume() == (TrainingPosition(1), {})
    expected = "step_00000002: weights.pt cannot be read: Input/output error: continuing from step_00000001"
    assert expected in capsys.readouterr().out


def test_a_file_that_rank_0_does_not_see_costs_the_checkpoint(
    saver: Saver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = OneFile.save

    def elsewhere(self: OneFile, folder: Path, tag: str, **more: bool) -> BigchemCheckpointEngine:
        files = save(self, folder, tag, **more)
        files.written[folder / tag / "on_another_node.pt"] = (3, "0" * 64)
        return files

    monkeypatch.setattr(OneFile, "save", elsewhere)
    assert saver.save(TrainingPosition(1), {}).path is None
    expected = (
        "failed on rank 0: on_another_node.pt was written with 3 bytes, rank 0 does not see it; no earlier one exists"
    )
    assert expected in capsys.readouterr().out
    with pytest.raises(UserError, match=r"on_another_node\.pt"):
        saver.save(TrainingPosition(2), {}, final=True)


def test_a_resume_from_other_weights_than_were_saved_is_stopped_with_both_losses(
    small_data: Path, tmp_path: Path
) -> None:
    """DeepSpeed's round_robin_gradients, which bigchem refuses, assigns parameters to ranks in a different order."""
    config = config_of(tmp_path, small_data, "dealt", train={"steps": 3})
    run_ranks(_in_round_robin, 2, config)
    [text] = run_ranks(output_of, 1, config.model_copy(update={"train": config.train.model_copy(update={"steps": 6})}))
    assert "loaded by 1 rank at ZeRO-2, its weights give the probe batch a loss of" in text
    assert "the engine recorded" in text
    assert len(losses(config)) == 3


def _in_round_robin(config: RunConfig) -> None:
    """Trains with a key that bigchem refuses in files."""
    from bigchem.ds_config import completing

    complete = completing.completed

    def completed(config: RunConfig, world_size: int) -> completing.Completed:
        found = complete(config, world_size)
        found.table["zero_optimization"]["round_robin_gradients"] = True
        return found

    from bigchem import ds_config

    ds_config.completed = completed
    train_here(config)
