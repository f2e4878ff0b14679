from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from http_server import serving

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.storage import remote
from bigchem.data.storage.columns import write_lengths
from bigchem.data.storage.index import Index, Shard, other_files
from bigchem.data.storage.shards import Data
from bigchem.data.storage.verify import verify

QUIET = Progress(quiet=True)
SHARD, LENGTHS, TOKENIZER = "train/forward-00001.arrow", "lengths/train-forward.npy", "tokenizer/tokenizer.json"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,))


@pytest.fixture
def copied(small_data: Path, tmp_path: Path) -> Path:
    """A data folder that a test may damage."""
    shutil.copytree(small_data, tmp_path / "data")
    return tmp_path / "data"


def reindex(folder: Path, shards: Callable[[list[Shard]], list[Shard]] = lambda listed: listed) -> None:
    """Rewrites the index with the shards of train/forward changed, as if it had been wrong from the start."""
    old = Data(folder).index
    train = {**old.shards["train"], "forward": shards(old.shards["train"]["forward"])}
    new = Index(old.tokenizer, {**old.shards, "train": train}, files=other_files(folder))
    (folder / "index.json").write_text(new.to_json())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


KINDS = [(cut, "truncated"), (flip, "altered"), (grow, "altered"), (Path.unlink, "missing")]


def test_whole_data_is_found_whole_and_all_of_it_is_counted(small_data: Path) -> None:
    report = verify(small_data, QUIET)
    read = [p for p in small_data.rglob("*") if p.is_file() and p.name not in {"index.json", "rejected.jsonl"}]
    assert report.ok
    assert (report.files, report.bytes) == (len(read), sum(p.stat().st_size for p in read))
    assert report.rows == sum(sum(tasks.values()) for tasks in map(Data(small_data).index.rows, ("train", "test")))


@pytest.mark.parametrize("where", ["folder", "url"])
@pytest.mark.parametrize("name", [SHARD, LENGTHS, TOKENIZER])
@pytest.mark.parametrize(("damage", "message"), KINDS)
def test_each_damage_of_each_file_is_found_with_its_rows(
    copied: Path, where: str, name: str, damage: Callable[[Path], None], message: str
) -> None:
    shards = Data(copied).index.shards["train"]["forward"]
    damage(copied / name)
    with serving(copied) as server:
        report = verify(server.url if where == "url" else copied, QUIET)
    (found,) = report.damage
    assert found.path == name if where == "folder" else found.path.endswith(name)
    assert found.what.startswith(message)
    rows = sum(shard.rows for shard in shards)
    assert found.rows == {SHARD: (70, 69 + shards[1].rows), LENGTHS: (0, rows - 1), TOKENIZER: None}[name]
    assert report.rows_lost == {SHARD: shards[1].rows, LENGTHS: rows, TOKENIZER: report.rows}[name]


def test_all_damage_is_listed_not_the_first(copied: Path) -> None:
    paths = [copied / name for name in (SHARD, TOKENIZER, "lengths/train-actions.npy", "test/actions-00000.arrow")]
    for path, (damage, _) in zip(paths, KINDS, strict=True):
        damage(path)
    report = verify(copied, QUIET)
    assert {d.path for d in report.damage} == {path.relative_to(copied).as_posix() for path in paths}


def test_a_row_that_two_damaged_files_cost_is_counted_once(copied: Path) -> None:
    for name in (SHARD, LENGTHS, "test/forward-00000.arrow"):
        cut(copied / name)
    index = Data(copied).index
    assert verify(copied, QUIET).rows_lost == index.rows("train")["forward"] + index.rows("test")["forward"]


def test_lengths_that_are_not_the_tokens_are_found_though_every_hash_is_right(copied: Path) -> None:
    lengths = np.array(Data(copied).split("train", "forward").lengths)
    lengths[[71, 75], 1] += 1
    write_lengths(copied, "train", "forward", lengths)
    reindex(copied)
    (found,) = verify(copied, QUIET).damage
    assert str(found).startswith(f"{SHARD}: 2 rows disagree with the token counts in the lengths: rows 70 to ")


def test_a_shard_of_other_rows_than_stated_is_found_though_every_hash_is_right(copied: Path) -> None:
    lengths = np.array(Data(copied).split("train", "forward").lengths)
    write_lengths(copied, "train", "forward", np.concatenate([lengths, lengths[:1]]))
    reindex(copied, lambda s: [*s[:-1], Shard(s[-1].path, s[-1].rows + 1, s[-1].bytes, s[-1].sha256)])
    (found,) = verify(copied, QUIET).damage
    assert f"not {found.rows[1] - found.rows[0] + 1} of ours" in found.what if found.rows else False


def test_no_index_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data here"):
        verify(tmp_path, QUIET)


def bigchem(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("bigchem")), "data", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_verb_lists_damage_and_exits_with_2(copied: Path) -> None:
    done = bigchem(str(copied), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    cut(copied / SHARD)
    done = bigchem(str(copied), "--json")
    table = json.loads(done.stdout)
    assert done.returncode == 2
    assert (table["ok"], [d["path"] for d in table["damage"]]) == (False, [SHARD])
    done = bigchem(str(copied))
    assert done.returncode == 2
    assert SHARD in done.stdout
    assert "truncated" in done.stdout
    assert f"1 of {table['files']} files are damaged" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith(("error", "next"))]) == 2
