from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from test_checkpoint import manifest, written

from bigchem.config import CheckpointConfig
from bigchem.errors import UserError
from bigchem.train.checkpoint import Manifest, publish
from bigchem.train.copying import Copies


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket/runs"
    fsspec.filesystem("memory").store.clear()


def checkpoint_of(folder: Path, step: int) -> Path:
    return publish(folder, written(folder, step), manifest(step))


def copies_of(to: str, **fields: int) -> Copies:
    return Copies(CheckpointConfig(copy_to=to, **fields), "run")


def test_copies_behind_a_url_are_kept_as_the_checkpoints_are_and_come_back_whole(memory: str, tmp_path: Path) -> None:
    copies = copies_of(memory, keep=2, keep_every=10)
    for step in (10, 15, 20, 25):
        copies.add(checkpoint_of(tmp_path / "there", step))
        while copies.busy:
            threading.Event().wait(0.01)
    copies.close()
    fs = fsspec.filesystem("memory")
    assert {p.split("/")[4] for p in fs.find("/bucket/runs/run")} == {"step_00000010", "step_00000020", "step_00000025"}
    found = copies_of(memory).fetch(tmp_path / "back")
    assert found == tmp_path / "back" / "step_00000025"
    assert Manifest.read(found).damage(found) is None


def test_a_copy_without_a_manifest_is_none(memory: str, tmp_path: Path) -> None:
    for step in (10, 20):
        copies = copies_of(memory)
        copies.add(checkpoint_of(tmp_path, step))
        copies.close()
    fsspec.filesystem("memory").rm_file("/bucket/runs/run/step_00000020/manifest.json")
    found = copies_of(memory).fetch(tmp_path / "back")
    assert found is not None
    assert found.name == "step_00000010"


def test_a_copy_that_fails_is_told_and_harms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    copies = copies_of(str(tmp_path / "file"))
    copies.add(checkpoint_of(tmp_path / "there", 10))
    copies.close()
    assert "copy of step_00000010 to" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot read the copies"):
        copies_of("nosuchprotocol://x").fetch(tmp_path)


def test_without_copies_nothing_happens(tmp_path: Path) -> None:
    copies = Copies(CheckpointConfig(), "run")
    copies.add(checkpoint_of(tmp_path, 10))
    shutil.rmtree(tmp_path / "step_00000010")
    assert copies.fetch(tmp_path) is None
    copies.close()
