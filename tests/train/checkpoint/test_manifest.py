"""A manifest: what it says of a damaged file, when it is damaged itself, and which job it refuses."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import manifest, written

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.store import DamagedError, Manifest, newest_readable, publish


def test_hashes_that_ranks_have_made_already_are_taken(tmp_path: Path) -> None:
    partial = written(tmp_path, 5)
    (partial / "swapped").mkdir()
    (partial / "swapped" / "other").write_bytes(b"of DeepSpeed's")
    final = publish(tmp_path, partial, manifest(5), {partial / "weights.pt": (256, "0" * 64)})
    files = Manifest.read(final).files
    assert list(files["weights.pt"]) == [256, "0" * 64]
    assert Manifest.read(final).damage(final) == "weights.pt differs from its manifest"
    assert files["swapped/other"][0] == 14


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
