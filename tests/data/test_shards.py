from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from datasets import load_dataset

from bigchem.data.shards import Data
from bigchem.errors import UserError


@pytest.fixture
def copied(small_data: Path, tmp_path: Path) -> Path:
    """A data folder that a test may damage."""
    shutil.copytree(small_data, tmp_path / "data")
    return tmp_path / "data"


def test_rows_come_back_by_number_across_shards(small_data: Path) -> None:
    rows = Data(small_data).split("train", "captioning")
    assert len(rows.shards) > 1
    assert len({rows.text(i)[0] for i in range(len(rows))}) == len(rows)
    for i in (0, 69, 70, len(rows) - 1):
        source, target = rows.tokens(i)
        assert [len(source), len(target)] == rows.lengths[i].tolist()


def test_datasets_reads_the_shards_as_they_are(small_data: Path, tmp_path: Path) -> None:
    rows = Data(small_data).split("train", "forward")
    files = [str(small_data / shard.path) for shard in rows.shards]
    loaded = load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == len(rows)
    assert tuple(loaded[3][name] for name in ("key", "source", "target")) == rows.text(3)
    assert loaded[3]["source_ids"] == rows.tokens(3)[0].tolist()


def test_a_folder_without_data_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bigchem data build"):
        Data(tmp_path)


def test_an_index_that_was_altered_is_refused(copied: Path) -> None:
    table = json.loads((copied / "index.json").read_text())
    table["shards"]["train"]["forward"][0]["rows"] += 1
    (copied / "index.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match="fingerprint"):
        Data(copied)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 99}'])
def test_an_index_that_is_none_is_refused(copied: Path, content: str) -> None:
    (copied / "index.json").write_text(content)
    with pytest.raises(UserError, match="build the data again"):
        Data(copied)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_shard_is_named(copied: Path, damage: str) -> None:
    rows = Data(copied).split("train", "forward")
    path = copied / rows.shards[1].path
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])
    rows.tokens(0)
    with pytest.raises(UserError, match=path.name):
        rows.tokens(70)


def test_a_task_without_rows_is_a_user_error(small_data: Path) -> None:
    with pytest.raises(UserError, match="no rows for task 'forward' in split 'valid'"):
        Data(small_data).split("valid", "forward")
