from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from datasets import load_dataset
from http_server import serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.data.storage.cache import Cache
from bigchem.data.storage.columns import read_lengths, write_lengths, write_shard
from bigchem.data.storage.index import Index, Shard, other_files
from bigchem.data.storage.shards import Data, TaskRows
from bigchem.data.text.tokenizer import Tokenizer


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
    with pytest.raises(UserError, match="--overwrite"):
        Data(copied)


def reindex(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the index and updates its fingerprint."""
    table = json.loads((folder / "index.json").read_text())
    change(table)
    table.pop("fingerprint")
    shards = {s: {t: [Shard(**x) for x in xs] for t, xs in tasks.items()} for s, tasks in table["shards"].items()}
    fingerprint = Index(table["tokenizer"], shards).fingerprint
    (folder / "index.json").write_text(json.dumps({**table, "fingerprint": fingerprint}))


def test_an_unknown_format_of_any_length_makes_a_short_message() -> None:
    with pytest.raises(UserError, match=r"index format 'xxx.*, expected 3") as error:
        Index.from_json(json.dumps({"format": "x" * 5000}), "index.json")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["files"].update({"../outside": [1, "0" * 64]}),
        lambda table: table["files"].update({"tokenizer/x": [1, "../../outside"]}),
        lambda table: table["files"].pop("lengths/train-forward.npy"),
        lambda table: table["shards"]["train"].update(forward=[]),
        lambda table: table["shards"]["train"]["forward"][0].update(path="/etc/passwd"),
        lambda table: table["shards"]["train"]["forward"][0].update(rows=0),
        lambda table: table.update(files=[]),
    ],
)
def test_an_index_that_leads_outside_or_lacks_a_file_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    reindex(copied, change)
    with pytest.raises(UserError, match="not an index"):
        Data(copied)


def test_the_index_lists_every_file_that_readers_need(small_data: Path) -> None:
    index = Data(small_data).index
    listed = {"index.json", *index.files, *(s.path for _, _, shards in index.tasks() for s in shards)}
    there = {p.relative_to(small_data).as_posix() for p in small_data.rglob("*") if p.is_file()}
    assert there - listed == {"rejected.jsonl"}
    assert listed <= there


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"truncated, 200 of [\d,]+ bytes"),
        (lambda path: path.write_bytes(b""), r"truncated, 0 of [\d,]+ bytes"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"altered, [\d,]+ bytes instead of [\d,]+"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "altered, not a shard: "),
    ],
)
def test_a_damaged_shard_is_named_with_the_rows_it_costs(
    copied: Path, damage: Callable[[Path], object], what: str
) -> None:
    rows = Data(copied).split("train", "forward")
    damage(copied / rows.shards[1].path)
    rows.gather(np.arange(70))
    for read in (lambda: rows.tokens(70), lambda: rows.gather(np.array([3, 75]))):
        with pytest.raises(UserError, match=rf"forward-00001\.arrow: {what}.*: rows 70 to \d+ of train/forward lost"):
            read()


def test_a_bit_that_flipped_is_found_where_it_is_asked_for(copied: Path) -> None:
    path = copied / Data(copied).split("train", "forward").shards[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Data(copied).split("train", "forward").tokens(0)
    with pytest.raises(UserError, match=r"altered, sha256 .* rows 0 to 69 of train/forward lost"):
        Data(copied, check=True).split("train", "forward").tokens(0)
    (copied / "tokenizer" / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: truncated"):
        _ = Data(copied).tokenizer_dir


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_damaged_lengths_are_named(copied: Path, content: bytes) -> None:
    file = copied / "lengths/train-forward.npy"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train-forward\.npy: "):
        _ = Data(copied).split("train", "forward").lengths


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gathered_rows_are_the_tokens_of_each_in_the_order_asked_for(small_data: Path, data: st.DataObject) -> None:
    rows = opened(small_data)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=60))
    gathered = rows.gather(np.array(chosen, dtype=np.int64))
    pairs = [rows.tokens(i) for i in chosen]
    for ids, lens, side in (
        (gathered.source_ids, gathered.source_lens, [source for source, _ in pairs]),
        (gathered.target_ids, gathered.target_lens, [target for _, target in pairs]),
    ):
        assert ids.dtype == np.int32
        assert lens.tolist() == [len(tokens) for tokens in side]
        assert ids.tolist() == [token for tokens in side for token in tokens.tolist()]


@cache
def opened(folder: Path) -> TaskRows:
    return Data(folder).split("train", "forward")


@pytest.mark.parametrize("row", [-1, 10**6])
def test_a_row_that_is_not_there_is_an_index_error(small_data: Path, row: int) -> None:
    with pytest.raises(IndexError):
        opened(small_data).gather(np.array([0, row]))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=9)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, IDS, IDS), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_rows_are_written_whole_and_equal_rows_to_equal_bytes(rows: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as name:
        columns = dict(
            zip(("key", "source", "target", "source_ids", "target_ids"), zip(*rows, strict=True), strict=True)
        )
        for root in (Path(name) / "a", Path(name) / "b"):
            shard = write_shard(root, "train/forward-00000.arrow", columns)
            write_lengths(root, "train", "forward", [(len(r[3]), len(r[4])) for r in rows])
            index = Index("", {"train": {"forward": [shard]}}, files=other_files(root))
            (root / "index.json").write_text(index.to_json())
            read = Data(root, check=True).split("train", "forward")
            found = [(*read.text(i), *(ids.tolist() for ids in read.tokens(i))) for i in range(len(read))]
            assert found == rows
        assert [p.name for p in sorted((root / "train").iterdir())] == ["forward-00000.arrow"]
        assert (Path(name) / "a" / shard.path).read_bytes() == (root / shard.path).read_bytes()


@pytest.mark.parametrize(("longest", "dtype"), [(65535, np.uint16), (65536, np.uint32)])
def test_lengths_take_two_bytes_where_all_fit(tmp_path: Path, longest: int, dtype: type) -> None:
    write_lengths(tmp_path, "train", "forward", [(1, 2), (3, longest)])
    lengths = read_lengths(pa.py_buffer((tmp_path / "lengths/train-forward.npy").read_bytes()), 2)
    assert lengths.dtype == dtype
    assert lengths.tolist() == [[1, 2], [3, longest]]


def test_data_behind_a_url_reads_like_the_folder(small_data: Path, tmp_path: Path) -> None:
    with serving(small_data) as server:
        data = Data(server.url, cache=Cache(tmp_path / "cache"))
        assert data.index == Data(small_data).index
        here, there = opened(small_data), data.split("train", "forward")
        everything = np.arange(len(here))[::-1]
        for mine, theirs in zip(here.gather(everything), there.gather(everything), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        folder = data.tokenizer_dir
        assert Tokenizer.load(folder).fingerprint == data.index.tokenizer
        before = server.requests.total()
    again = there.gather(everything)  # the server is gone, the cache is not
    np.testing.assert_array_equal(again.source_ids, here.gather(everything).source_ids)
    assert before == 1 + len(here.shards) + 1 + len(data.index.under("tokenizer"))


def test_data_in_a_filesystem_of_fsspec(small_data: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(small_data), "/published", recursive=True)
    data = Data("memory://published/", cache=Cache(tmp_path / "cache"))
    assert data.split("train", "forward").text(75) == opened(small_data).text(75)


def test_errors_of_the_remote_name_the_url(small_data: Path, tmp_path: Path) -> None:
    local = Cache(tmp_path / "cache")
    with serving(small_data) as server:
        with pytest.raises(UserError, match=rf"{server.url}/none/index\.json: missing"):
            Data(f"{server.url}/none", cache=local)
        server.faults["train/forward-00001.arrow"] = ["404"]
        rows = Data(server.url, cache=local, open_remote=1).split("train", "forward")
        with pytest.raises(UserError, match=rf"{server.url}/train/forward-00001\.arrow: missing: rows 70 to"):
            rows.tokens(75)
    with pytest.raises(UserError, match="Protocol not known"):
        Data("gopher://host/data", cache=local)


def test_a_protocol_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    if find_spec("s3fs"):
        pytest.skip("s3fs is here")
    with pytest.raises(UserError, match=r"pip install 'fsspec\[s3\]'"):
        Data("s3://bucket/data", cache=Cache(tmp_path))


def test_evicted_shards_are_really_freed_and_read_again(small_data: Path, tmp_path: Path) -> None:
    here = Data(small_data).split("train", "captioning")
    local = Cache(tmp_path / "cache", max(s.bytes for s in here.shards) + 2000)
    with serving(small_data) as server:
        there = Data(server.url, cache=local, open_remote=1).split("train", "captioning")
        for _ in range(2):
            for row in range(0, len(here), 35):
                assert there.tokens(row)[0].tolist() == here.tokens(row)[0].tolist()
        assert server.requests[here.shards[0].path] == 2
    mapped = {line.split()[5] for line in Path("/proc/self/maps").read_text().splitlines() if str(local.path) in line}
    assert len(mapped) == 2  # the last shard and the lengths


def test_two_threads_may_read_the_same_rows(small_data: Path, tmp_path: Path) -> None:
    here = Data(small_data).split("train", "captioning")
    chosen = [np.random.default_rng(i).integers(0, len(here), 50) for i in range(100)]
    expected = [here.gather(rows).target_ids.tolist() for rows in chosen]
    with serving(small_data) as server, ThreadPoolExecutor(4) as pool:
        there = Data(server.url, cache=Cache(tmp_path / "cache"), open_remote=1).split("train", "captioning")
        assert [g.target_ids.tolist() for g in pool.map(there.gather, chosen)] == expected


def test_a_task_without_rows_is_a_user_error(small_data: Path) -> None:
    with pytest.raises(UserError, match="no rows for task 'forward' in split 'valid'"):
        Data(small_data).split("valid", "forward")
