from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.config import CheckpointConfig
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.store import (
    DamagedError,
    Manifest,
    damaged,
    disk_room,
    disk_warning,
    doom_superseded,
    latest,
    newest_readable,
    publish,
    published,
    remove_doomed,
    repair_latest,
    set_aside,
    step_name,
    superseded,
)


def clean(checkpoints: Path, config: CheckpointConfig, **options: Any) -> None:
    doom_superseded(checkpoints, config, **options)
    remove_doomed(checkpoints)


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step,
        position=10 * step,
        tokens=100 * step,
        world_size=2,
        zero_stage=2,
        precision="fp32",
        optimizer="adamw",
        data_fingerprint="f" * 16,
        model={"vocab_size": 2},
        probe={"sources": [[1]], "targets": [[1]], "loss": 1.0},
    )


def written(checkpoints: Path, step: int) -> Path:
    partial = checkpoints / (step_name(step) + ".partial")
    partial.mkdir(parents=True)
    (partial / "weights.pt").write_bytes(bytes(range(256)))
    return partial


def names(checkpoints: Path) -> list[str]:
    return sorted(p.name for p in checkpoints.iterdir())


def test_a_checkpoint_appears_whole_under_its_name(tmp_path: Path) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    assert names(tmp_path) == ["latest", "step_00000005"]
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    read = Manifest.read(final)
    assert (read.step, read.position, read.bytes) == (5, 50, 256)
    assert read.damage(final) is None


def test_hashes_that_ranks_have_made_already_are_taken(tmp_path: Path) -> None:
    partial = written(tmp_path, 5)
    (partial / "swapped").mkdir()
    (partial / "swapped" / "other").write_bytes(b"of DeepSpeed's")
    final = publish(tmp_path, partial, manifest(5), {partial / "weights.pt": (256, "0" * 64)})
    files = Manifest.read(final).files
    assert list(files["weights.pt"]) == [256, "0" * 64]
    assert Manifest.read(final).damage(final) == "weights.pt differs from its manifest"
    assert files["swapped/other"][0] == 14


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


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    file = final / "weights.pt"
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncate" else bytes([content[0] ^ 1]) + content[1:])
    assert "weights.pt" in str(Manifest.read(final).damage(final))


@settings(max_examples=25, deadline=None)  # files: as slow as the disk
@given(st.lists(st.integers(1, 100), min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 100))
def test_ranks_that_share_the_check_see_every_file_once(sizes: list[int], shares: int, bad: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "step_00000005.partial"
        partial.mkdir()
        for i, size in enumerate(sizes):
            (partial / f"file{i}").write_bytes(bytes(size))
        final = publish(Path(folder), partial, manifest(5))
        read, name = Manifest.read(final), f"file{bad % len(sizes)}"
        assert [read.damage(final, i, shares) for i in range(shares)] == [None] * shares
        (final / name).write_bytes(b"x")
        (found,) = {read.damage(final, i, shares) for i in range(shares)} - {None}
        assert found == f"{name} differs from its manifest"


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "step": 3}', "[1]", '{"format": 2, "step": '])
def test_a_manifest_that_is_none_is_refused_and_passed_over(tmp_path: Path, text: str) -> None:
    publish(tmp_path, written(tmp_path, 5), manifest(5))
    final = publish(tmp_path, written(tmp_path, 6), manifest(6))
    (final / "manifest.json").write_text(text)
    with pytest.raises(DamagedError, match="manifest"):
        Manifest.read(final)
    newest = newest_readable(tmp_path)
    assert newest is not None
    assert newest[1].step == 5


@pytest.mark.parametrize(
    "damage",
    [
        {"step": "3"},
        {"precision": "x"},
        {"model": None},
        {"model": {}},
        {"state": None},
        {"state": {"validation": None}},
        {"files": {"weights.pt": ["256", ""]}},
        {"files": {"weights.pt": [256, "sha256/8MiB:" + 64 * "0"]}},
        {"more": 1},
        {"probe": {}},
        *({"probe": {**manifest(6).probe, **part}} for part in ({"targets": [[2]]}, {"sources": []}, {"loss": None})),
    ],
    ids=str,
)
def test_a_manifest_with_a_damaged_field_is_named(tmp_path: Path, damage: dict[str, Any]) -> None:
    file = publish(tmp_path, written(tmp_path, 6), manifest(6)) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(DamagedError, match=r"step_00000006/manifest\.json: not a manifest: [^\n]+$"):
        Manifest.read(file.parent)


def test_a_manifest_of_another_version_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="written by another version") as error:
        Manifest.read(tmp_path)
    assert not isinstance(error.value, DamagedError)


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


def test_other_data_precision_or_optimizer_is_refused_with_the_way_out(tmp_path: Path) -> None:
    saved = manifest(5)
    saved.refuse_unless(tmp_path, "f" * 16, "bf16", "adamw")
    for fields, message in [
        (("0" * 16, "fp32", "adamw"), "trained on data f+, the data now is 0+"),
        (("f" * 16, "fp16", "adamw"), "saved in fp32, this job has fp16"),
        (("f" * 16, "fp32", "adafactor"), "saved by the optimizer adamw, this job has adafactor"),
    ]:
        with pytest.raises(UserError, match=message) as refused:
            saved.refuse_unless(tmp_path, *fields)
        assert refused.value.hint is not None


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


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Operations in order: "fsync NAME", "rename NAME"; temporary files appear under their final names."""
    events: list[str] = []

    def name_of(path: object) -> str:
        return re.sub(r"^\.(.*)\.\d+\.partial$", r"\1", Path(str(path)).name)

    def record(module: object, what: str, path_of: Callable[[Any], object]) -> None:
        real = getattr(module, what)

        def wrapped(first: Any, *rest: Any) -> Any:
            name = name_of(path_of(first))
            result = real(first, *rest)
            events.append(f"{'fsync' if what == 'fsync' else 'rename'} {name}")
            return result

        monkeypatch.setattr(module, what, wrapped)

    record(os, "fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    record(os, "rename", str)
    record(os, "replace", str)
    yield events
    monkeypatch.undo()


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


def test_what_cannot_be_read_is_damage_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    read = Manifest.read(final)

    def stale(path: Path, *args: object, **kwargs: object) -> object:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "open", stale)
    assert read.damage(final) == "weights.pt cannot be read: Stale file handle"
    with pytest.raises(DamagedError, match=r"manifest\.json cannot be read: Stale file handle"):
        Manifest.read(final)


@pytest.mark.parametrize("name", ["../other/weights.pt", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_that_names_files_elsewhere_is_none(tmp_path: Path, name: str) -> None:
    final = publish(tmp_path, written(tmp_path, 5), manifest(5))
    file = final / "manifest.json"
    file.write_text(file.read_text().replace('"weights.pt"', json.dumps(name)))
    with pytest.raises(DamagedError, match="not a manifest"):
        Manifest.read(final)
