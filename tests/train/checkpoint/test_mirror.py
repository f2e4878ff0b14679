from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from small_checkpoints import manifest, recorded, written

from bigchem.base.errors import UserError
from bigchem.config import CheckpointConfig
from bigchem.train.checkpoint import mirror
from bigchem.train.checkpoint.mirror import Mirror
from bigchem.train.checkpoint.store import Manifest, publish


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket/runs"
    fsspec.filesystem("memory").store.clear()


def checkpoint_of(folder: Path, step: int) -> Path:
    return publish(folder, written(folder, step), manifest(step))


def copies_of(to: str, **fields: int) -> Mirror:
    return Mirror(CheckpointConfig(copy_to=to, **fields), "run")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know a descriptor's file")
def test_copies_behind_a_url_are_kept_as_the_checkpoints_are_and_come_back_whole(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = copies_of(memory, keep=2, keep_every=10)
    for step in (10, 15, 20, 25):
        copies.add(checkpoint_of(tmp_path / "there", step))
        while copies.pending:
            threading.Event().wait(0.01)
    copies.close()
    fs = fsspec.filesystem("memory")
    assert {p.split("/")[4] for p in fs.find("/bucket/runs/run")} == {"step_00000010", "step_00000020", "step_00000025"}
    with recorded(monkeypatch) as events:
        found = copies_of(memory).fetch(tmp_path / "back")
    inside = {f"fsync {name}" for name in ("weights.pt", "manifest.json", "step_00000025.partial")}
    assert set(events[:-2]) == inside
    assert events[-2:] == ["rename step_00000025.partial", "fsync back"]
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
    copies = Mirror(CheckpointConfig(), "run")
    copies.add(checkpoint_of(tmp_path, 10))
    shutil.rmtree(tmp_path / "step_00000010")
    assert copies.fetch(tmp_path) is None
    copies.close()


def test_a_damaged_copy_is_passed_over_for_an_older_one(
    memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fs = fsspec.filesystem("memory")
    for step in (10, 20, 30, 40):
        copies = copies_of(memory, keep=4)
        copies.add(checkpoint_of(tmp_path / "there", step))
        copies.close()
    fs.pipe_file("/bucket/runs/run/step_00000040/weights.pt", b"of another length")
    fs.rm_file("/bucket/runs/run/step_00000030/weights.pt")
    fs.pipe_file("/bucket/runs/run/step_00000020/manifest.json", b"{")
    assert copies_of(memory).fetch(tmp_path / "back") == tmp_path / "back" / "step_00000010"
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["step_00000010"]
    output = capsys.readouterr().out
    assert "the copy of step_00000040 in memory://bucket/runs/run is damaged: weights.pt differs" in output
    assert "step_00000030 in memory://bucket/runs/run is damaged: weights.pt is missing" in output
    assert "step_00000020 in memory://bucket/runs/run is damaged: not a manifest" in output
    fs.rm_file("/bucket/runs/run/step_00000010/weights.pt")
    with pytest.raises(UserError, match="no intact copy"):
        copies_of(memory).fetch(tmp_path / "again")


def test_only_what_the_manifest_lists_comes_back(memory: str, tmp_path: Path) -> None:
    copies = copies_of(memory)
    copies.add(checkpoint_of(tmp_path / "there", 10))
    copies.close()
    fs, at = fsspec.filesystem("memory"), "/bucket/runs/run/step_00000010"
    fs.pipe_file(f"{at}/../../../../escaped", b"")
    fs.store[f"{at}/../../escaped"] = fs.store[f"{at}/weights.pt"]
    found = copies_of(memory).fetch(tmp_path / "a" / "b")
    assert found is not None
    assert sorted(p.name for p in found.iterdir()) == ["manifest.json", "weights.pt"]
    listed = fs.cat_file(f"{at}/manifest.json").replace(b'"weights.pt"', b'"../../escaped"')
    fs.pipe_file(f"{at}/manifest.json", listed)
    with pytest.raises(UserError, match="no intact copy"):
        copies_of(memory).fetch(tmp_path / "c" / "d")
    assert not list(tmp_path.rglob("escaped"))


def test_a_copy_behind_a_url_has_a_manifest_only_while_it_is_whole(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are sent and removed only while the manifest is missing."""
    fs, manifest_seen = fsspec.filesystem("memory"), []
    at = "/bucket/runs/run/step_00000010"
    for what in ("put_file", "rm"):
        real = getattr(type(fs), what)

        def checked(self: object, *args: object, real: Callable[..., object] = real, **kwargs: object) -> None:
            manifest_seen.append(f"{at}/manifest.json" in fs.store)
            real(self, *args, **kwargs)

        monkeypatch.setattr(type(fs), what, checked)
    store = mirror._Store(f"{memory}/run")
    for folder in ("first", "second"):
        copy = checkpoint_of(tmp_path / folder, 10)
        (copy / folder).touch()
        store.put(copy)
    assert {p.split("/")[-1] for p in fs.find(at)} == {"manifest.json", "weights.pt", "second"}
    store.remove(10)
    assert len(manifest_seen) >= 8  # three files sent twice, two folders removed
    assert not any(manifest_seen)
    assert store.steps() == []
