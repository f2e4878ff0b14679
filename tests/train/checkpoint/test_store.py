"""Checkpoints are published whole, kept as configured, and survive a kill at any moment."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_checkpoints import clean, manifest, names, recorded, written

from bigchem.base.errors import UserError
from bigchem.config import CheckpointConfig
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.store import (
    Manifest,
    damaged,
    disk_room,
    disk_warning,
    latest,
    publish,
    published,
    repair_latest,
    set_aside,
    step_name,
    superseded,
)


def test_a_checkpoint_appears_whole_under_its_name(tmp_path: Path) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    assert names(tmp_path) == ["latest", "step_00000005"]
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    read = Manifest.read(final)
    assert (read.step, read.position, read.bytes) == (5, 50, 256)
    assert read.damage(final) is None


def test_an_older_attempt_at_the_same_step_is_replaced(tmp_path: Path) -> None:
    old = publish(tmp_path, written(tmp_path, 5), manifest(5))
    (old / "old").touch()
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    clean(tmp_path, CheckpointConfig())
    assert names(tmp_path) == ["latest", "step_00000005"]
    assert names(tmp_path / "step_00000005") == ["manifest.json", "weights.pt"]


def test_partial_checkpoints_are_never_the_latest(tmp_path: Path) -> None:
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    written(tmp_path, 9)
    (tmp_path / "step_00000007").mkdir()  # no manifest
    newest = latest(tmp_path)
    assert newest is not None
    assert newest.name == "step_00000005"


def test_retention_keeps_the_newest_the_permanent_and_the_best_and_removes_the_partial(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        publish(tmp_path, written(tmp_path, step), manifest(step))
    written(tmp_path, 60)
    clean(tmp_path, CheckpointConfig(keep=2, keep_every=20), best=10)
    assert [p.name for p in published(tmp_path)] == [step_name(s) for s in (10, 20, 40, 50)]
    assert not list(tmp_path.glob("*.partial"))


def test_a_checkpoint_that_is_being_copied_is_removed_the_next_time(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        publish(tmp_path, written(tmp_path, step), manifest(step))
    clean(tmp_path, CheckpointConfig(keep=1), in_use=[tmp_path / step_name(10)])
    assert [p.name for p in published(tmp_path)] == [step_name(10), step_name(30)]
    clean(tmp_path, CheckpointConfig(keep=1))
    assert [p.name for p in published(tmp_path)] == [step_name(30)]


def test_a_kill_while_one_is_removed_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20):
        publish(tmp_path, written(tmp_path, step), manifest(step))

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        clean(tmp_path, CheckpointConfig(keep=1))
    assert [p.name for p in published(tmp_path)] == [step_name(20)]
    monkeypatch.undo()
    clean(tmp_path, CheckpointConfig(keep=1))
    assert names(tmp_path) == ["latest", step_name(20)]


@given(st.sets(st.integers(0, 200)), st.integers(1, 5), st.integers(0, 20), st.integers(0, 200))
def test_retention_never_gives_up_the_newest_the_permanent_or_the_best(
    steps: set[int], keep: int, keep_every: int, best: int
) -> None:
    lost = superseded(steps, CheckpointConfig(keep=keep, keep_every=keep_every), best)
    left = steps - set(lost)
    assert set(sorted(steps)[-keep:]) | (steps & {best}) <= left
    assert len(left) <= keep + 1 + (len([s for s in steps if s % keep_every == 0]) if keep_every else 0)


def test_a_damaged_checkpoint_is_kept_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    for step in (5, 6):
        publish(tmp_path, written(tmp_path, step), manifest(step))
    set_aside(tmp_path / "step_00000006")
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    publish(tmp_path, written(tmp_path, 6), manifest(6))
    set_aside(tmp_path / "step_00000006")
    clean(tmp_path, CheckpointConfig(keep=1))
    assert [p.name for p in damaged(tmp_path)] == ["step_00000006.damaged", "step_00000006.damaged1"]
    assert [p.name for p in published(tmp_path)] == ["step_00000005"]


def test_latest_that_names_nothing_is_mended(tmp_path: Path) -> None:
    assert repair_latest(tmp_path) is None
    for step in (5, 6):
        publish(tmp_path, written(tmp_path, step), manifest(step))
    assert repair_latest(tmp_path) is None
    shutil.rmtree(tmp_path / "step_00000006")
    assert repair_latest(tmp_path) == "step_00000006"
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    shutil.rmtree(tmp_path / "step_00000005")
    assert repair_latest(tmp_path) == "step_00000005"
    assert names(tmp_path) == []


def test_a_disk_on_which_the_next_checkpoint_has_no_room_is_told_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, needed = disk_room(tmp_path / "not" / "there")
    assert free > 0
    assert needed == 0
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    assert disk_room(tmp_path)[1] == 256
    assert disk_warning(tmp_path) is None
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage(255))
    warning = disk_warning(tmp_path)
    assert warning is not None
    assert warning.startswith("disk nearly full: ")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know a descriptor's file")
def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = written(tmp_path, 5)
    (partial / "swapped").mkdir()
    (partial / "swapped" / "other").touch()
    with recorded(monkeypatch) as events:
        publish(tmp_path, partial, manifest(5))
    named = events.index("rename step_00000005.partial")
    inside = {f"fsync {name}" for name in ("weights.pt", "swapped", "other", "manifest.json", "step_00000005.partial")}
    assert inside | {"rename manifest.json"} == set(events[:named])
    assert events.index("rename manifest.json") < events.index("fsync step_00000005.partial", named - 1)
    checkpoints = f"fsync {tmp_path.name}"
    assert events[named + 1 :] == [checkpoints, "fsync latest", "rename latest", checkpoints]
    with recorded(monkeypatch) as events:
        set_aside(tmp_path / "step_00000005")
    assert events == ["rename step_00000005", checkpoints]


@pytest.mark.parametrize("after", ["the old one gave way", "the new one has the name"])
def test_a_kill_while_an_attempt_is_replaced_leaves_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    (publish(tmp_path, written(tmp_path, 5), manifest(5)) / "old").touch()
    rename, suffix = os.rename, ".partial" if after == "the old one gave way" else ".replaced"

    def killed(source: Path, target: Path) -> None:
        if str(source).endswith(suffix):
            raise KeyboardInterrupt
        rename(source, target)

    partial = written(tmp_path, 5)
    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, partial, manifest(5))
    monkeypatch.undo()
    assert repair_latest(tmp_path) is None
    clean(tmp_path, CheckpointConfig())
    assert names(tmp_path) == ["latest", "step_00000005"]
    assert (tmp_path / "step_00000005" / "old").exists() == (suffix == ".partial")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"weights.pt": 256, "away.pt": 3}, r"away\.pt .* 3 bytes, rank 0 does not see it"),
        ({"weights.pt": 257}, "sees 256"),
    ],
)
def test_what_a_rank_wrote_and_rank_0_does_not_see_is_not_published(
    tmp_path: Path, sizes: dict[str, int], message: str
) -> None:
    partial = written(tmp_path, 5)
    with pytest.raises(UserError, match=message) as refused:
        publish(tmp_path, partial, manifest(5), {partial / name: (size, "0" * 64) for name, size in sizes.items()})
    assert refused.value.hint is not None
    assert published(tmp_path) == []


def test_a_published_checkpoint_is_good_though_latest_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = store.atomic.write_atomically

    def full(path: Path, content: str) -> None:
        if path.name == "latest":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(store.atomic, "write_atomically", full)
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    assert latest(tmp_path) == tmp_path / "step_00000005"
    expected = "step_00000005 is published, but `latest` was not updated: No space left on device\n"
    assert capsys.readouterr().out == expected
