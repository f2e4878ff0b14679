from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.config import CheckpointConfig
from bigchem.errors import UserError
from bigchem.train.checkpoint import Manifest, clean, latest, publish, published, step_name


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step,
        position=10 * step,
        tokens=100 * step,
        world_size=2,
        zero_stage=2,
        precision="fp32",
        data_fingerprint="f" * 16,
        model={},
        probe={"loss": 1.0},
    )


def written(checkpoints: Path, step: int) -> Path:
    partial = checkpoints / (step_name(step) + ".partial")
    partial.mkdir(parents=True)
    (partial / "weights.pt").write_bytes(bytes(range(256)))
    return partial


def test_a_checkpoint_appears_whole_under_its_name(tmp_path: Path) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_00000005"]
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    read = Manifest.read(final)
    assert (read.step, read.position) == (5, 50)
    read.check_files(final)


def test_partial_checkpoints_are_never_the_latest(tmp_path: Path) -> None:
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    written(tmp_path, 9)
    (tmp_path / "step_00000007").mkdir()  # no manifest
    newest = latest(tmp_path)
    assert newest is not None
    assert newest.name == "step_00000005"


def test_retention_keeps_the_newest_and_the_permanent_and_removes_the_partial(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        publish(tmp_path, written(tmp_path, step), manifest(step))
    written(tmp_path, 60)
    clean(tmp_path, CheckpointConfig(keep=2, keep_every=20))
    assert [p.name for p in published(tmp_path)] == [step_name(s) for s in (20, 40, 50)]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    file = final / "weights.pt"
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncate" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(UserError, match=r"weights\.pt"):
        Manifest.read(final).check_files(final)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "step": 3}', '{"format": 7}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest"):
        Manifest.read(tmp_path)
