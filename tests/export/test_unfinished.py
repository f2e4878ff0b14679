"""An interrupted folder is resumed if its identity is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Thread

import pytest

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.export.unfinished import Unfinished, unfinished


def put(work: Unfinished, name: str, content: bytes) -> None:
    (work.folder / name).write_bytes(content)
    work.finish(name, len(content), hashlib.sha256(content).hexdigest())


def cut_off(path: Path) -> None:
    """Two files are complete, the third is not."""
    fill(path, {"of": 1}, KeyboardInterrupt())


def fill(path: Path, identity: dict[str, int], end: BaseException) -> None:
    with pytest.raises(type(end)), unfinished(path, identity) as work:  # noqa: PT012 - the whole block is the case
        put(work, "a", b"a")
        put(work, "b", b"b")
        (work.folder / "c").write_bytes(b"half")
        raise end


def test_whole_files_are_kept_and_the_rest_is_not(tmp_path: Path) -> None:
    cut_off(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with unfinished(tmp_path / "out", {"of": 1}) as work:
        assert (work.files.keys(), work.reused) == ({"a", "b"}, 2)
        assert not (work.folder / "c").exists()
        put(work, "c", b"c")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"a": b"a", "b": b"b", "c": b"c"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_another_identity_begins_anew(tmp_path: Path) -> None:
    cut_off(tmp_path / "out")
    with unfinished(tmp_path / "out", {"of": 2}) as work:
        assert work.reused == 0
        assert not (work.folder / "a").exists()


@pytest.mark.parametrize("damage", [b"x", None])
def test_a_file_that_is_not_as_it_was_written_is_made_again(damage: bytes | None, tmp_path: Path) -> None:
    cut_off(tmp_path / "out")
    file = tmp_path / ".out.partial" / "a"
    file.unlink() if damage is None else file.write_bytes(damage)
    with unfinished(tmp_path / "out", {"of": 1}) as work:
        assert work.files.keys() == {"b"}


@pytest.mark.parametrize("record", ["", "[]", '{"identity": {"of": 1}}', '{"identity": {"of": 1}, "files": {"a": 3}}'])
def test_a_record_that_is_none_counts_for_nothing(record: str, tmp_path: Path) -> None:
    cut_off(tmp_path / "out")
    (tmp_path / ".out.partial" / "unfinished.json").write_text(record)
    with unfinished(tmp_path / "out", {"of": 1}) as work:
        assert work.reused == 0


def test_what_is_wrong_is_not_gone_on_with(tmp_path: Path) -> None:
    fill(tmp_path / "out", {}, UserError("wrong"))
    assert not list(tmp_path.iterdir())


def test_an_older_folder_keeps_its_name_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with unfinished(tmp_path / "out", {}) as work:
        put(work, "new", b"")
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["old"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]


@pytest.mark.parametrize("publishing", [False, True], ids=["filled", "published"])
def test_a_second_one_waits_until_the_first_has_its_name(
    publishing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, plainly = [], atomic.take_place

    def second() -> None:
        with unfinished(tmp_path / "out", {"of": 2}) as work:
            seen.append((tmp_path / "out" / "first").exists())
            put(work, "second", b"")

    def comes() -> None:
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()

    def publish(partial: Path, path: Path) -> None:
        if publishing and not thread.ident:
            comes()
        plainly(partial, path)

    thread = Thread(target=second)
    monkeypatch.setattr(atomic, "take_place", publish)
    with unfinished(tmp_path / "out", {"of": 1}) as work:
        put(work, "first", b"")
        if not publishing:
            comes()
    thread.join(timeout=10)
    assert seen == [True]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
