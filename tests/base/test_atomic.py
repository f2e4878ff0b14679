"""Files and folders that are replaced whole, whatever else happens at the same time."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from bigchem.base import atomic
from bigchem.base.atomic import replace_atomically, replace_folder


def test_two_threads_that_replace_a_file_write_apart(tmp_path: Path) -> None:
    path, both = tmp_path / "state.json", threading.Barrier(2)

    def write(text: str) -> None:
        with replace_atomically(path) as file:
            for half in (text[:9], text[9:]):
                both.wait(10)
                file.write(half.encode())
                file.flush()

    texts = [json.dumps({"state": name}) for name in ("stopped", "failed by a lost rank")]
    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def replaced(folder: Path, content: str) -> str:
    with replace_folder(folder) as partial:
        (partial / "a").write_text(content)
    return (folder / "a").read_text()


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_whole_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    assert [replaced(tmp_path / "out", content) for content in ("old", "new")] == ["old", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_replaced_is_there_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "out", Path.rename
    assert replaced(folder, "old") == "old"
    (tmp_path / "other").mkdir()
    if not atomic._exchange(folder, tmp_path / "other"):
        pytest.skip("the file system cannot exchange two folders")

    def killed(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        assert folder.is_dir(), "a kill would leave no folder"
        return moved

    monkeypatch.setattr(Path, "rename", killed)
    assert replaced(folder, "new") == "new"
