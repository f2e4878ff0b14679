"""Exports that are refused: a damaged file, a loss that is not the recorded one, or what bigchem did not publish."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import copied, tampered

from bigchem.base.errors import UserError
from bigchem.cli import program
from bigchem.cli.main import app
from bigchem.export import export
from bigchem.train.checkpoint import block_hashes
from bigchem.train.checkpoint.store import Manifest, step_name
from bigchem.train.checkpoint.zero_layout import ZeroFiles


def test_a_mean_of_a_checkpoint_that_cannot_be_proven_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = copied(run, tmp_path / "run")
    probe = Manifest.read(run / "checkpoints" / step_name(3)).probe
    tampered(damaged, 3, probe={**probe, "loss": probe["loss"] * 1.01})
    with pytest.raises(UserError, match=r"step_00000003.*engine recorded"):
        export(damaged, tmp_path / "out", average=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": 4}, "only 3 checkpoints up to step 9"),
        ({"average": 2, "ema": True}, "already a mean"),
        ({"ema": True}, "holds no running mean"),
        ({"step": 4}, "no checkpoint after step 4"),
        ({"step": "best"}, "retains no best"),
        ({"shard_size": "5XB"}, "is not a size"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(run, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_what_another_process_made_meanwhile_is_not_replaced(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("bigchem.export.consolidate.check_files", lambda *args, **options: out.mkdir())
    with pytest.raises(UserError, match="already exists"):
        export(run, out)
    assert list(tmp_path.rglob("*")) == [out]


@pytest.mark.parametrize("fields", [{"data_fingerprint": "0" * 16}, {"model": {"vocab_size": 97}}])
def test_checkpoints_of_other_data_or_another_model_are_not_averaged(
    run: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    other = copied(run, tmp_path / "run")
    tampered(other, 6, **fields)
    with pytest.raises(UserError, match="another model or other data"):
        export(other, tmp_path / "out", average=2)


def test_another_loss_than_the_recorded_fails_loudly_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    damaged = copied(run, tmp_path / "run")
    probe = Manifest.read(run / "checkpoints" / step_name(9)).probe
    tampered(damaged, 9, probe={**probe, "loss": probe["loss"] + 0.01})
    with pytest.raises(UserError, match="the engine recorded"):
        export(damaged, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


OPTIMIZER_FILE = "zero_pp_rank_1_mp_rank_00_optim_states.pt"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "options"),
    [
        (flip, []),
        (Path.unlink, ["--no-hashes"]),
        (lambda path: os.truncate(path, path.stat().st_size - 1), ["--no-hashes"]),
    ],
    ids=["one bit", "missing", "cut off"],
)
def test_a_damaged_file_is_named_with_exit_code_2(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = copied(run, tmp_path / "run")
    damage(damaged / "checkpoints" / step_name(9) / OPTIMIZER_FILE)
    monkeypatch.setattr(sys, "argv", ["bigchem", "export", str(damaged), str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit) as stop:
        program.run(app)
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert f"error: {damaged / 'checkpoints' / step_name(9)}: {OPTIMIZER_FILE}" in output.err
    assert not (tmp_path / "out").exists()


def hashed_whole(run: Path) -> None:
    """Turns the newest manifest into the former format: hashes of whole files."""
    checkpoint = run / "checkpoints" / step_name(9)
    files = {
        name: [size, hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()]
        for name, (size, _) in Manifest.read(checkpoint).files.items()
    }
    tampered(run, 9, format=2, files=files)


def test_a_checkpoint_with_hashes_of_whole_files_is_still_verified(run: Path, tmp_path: Path) -> None:
    former = copied(run, tmp_path / "run")
    hashed_whole(former)
    assert export(former, tmp_path / "out").step == 9
    flip(former / "checkpoints" / step_name(9) / OPTIMIZER_FILE)
    with pytest.raises(UserError, match=f"{OPTIMIZER_FILE} differs from its manifest"):
        export(former, tmp_path / "again")


def test_a_change_among_the_weights_is_found_in_the_block_that_holds_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks so small that the structure and each weight have their own."""
    monkeypatch.setattr(block_hashes, "BLOCK", 256)
    damaged = copied(run, tmp_path / "run")
    checkpoint = damaged / "checkpoints" / step_name(9)
    files = {
        name: [size, block_hashes.digest_of(checkpoint / name)]
        for name, (size, _) in Manifest.read(checkpoint).files.items()
    }
    tampered(damaged, 9, files=files)
    assert export(damaged, tmp_path / "out").step == 9
    names = [name for name in files if name.endswith("_optim_states.pt")]
    for name in names:
        content = (checkpoint / name).read_bytes()
        place = ZeroFiles(checkpoint, Manifest.read(checkpoint))
        at = next(
            piece.flats["fp32"].offset
            for pieces in place._fragments.values()
            for piece in pieces
            if piece.flats["fp32"].path.name == name and piece.numel
        )
        (checkpoint / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=f"{name} differs from its manifest"):
            export(damaged, tmp_path / "again")
        assert not (tmp_path / "again").exists()
        (checkpoint / name).write_bytes(content)


def test_files_that_are_laid_out_otherwise_are_told(run: Path, tmp_path: Path) -> None:
    """As a future version of DeepSpeed might write."""
    other = copied(run, tmp_path / "run")
    checkpoint = other / "checkpoints" / step_name(9)
    torch.save({"optimizer_state_dict": {"fp32_flat_groups": []}}, checkpoint / OPTIMIZER_FILE)
    tampered(other, 9, files={})
    with pytest.raises(UserError, match="do not have DeepSpeed's layout at ZeRO-3"):
        export(other, tmp_path / "out")


def test_what_bigchem_did_not_publish_is_refused_with_the_way_out(run: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(run / "checkpoints" / step_name(9), tmp_path / "theirs" / "global_step9")
    (foreign / "manifest.json").unlink()
    for folder in (foreign, foreign.parent):
        with pytest.raises(UserError, match=r"not published by bigchem") as error:
            export(folder, tmp_path / "out")
        assert "zero_to_fp32.py" in str(error.value)
    partial = foreign.rename(tmp_path / "step_00000012.partial")
    with pytest.raises(UserError, match="is incomplete"):
        export(partial, tmp_path / "out")
