"""Readers on files that are not of their format: counts or a UserError, no other exception, bounded memory."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import config, read, write

from bigchem.base.errors import UserError
from bigchem.data.sources import READERS, read_rows, reader
from bigchem.data.sources.base import Record, RowError, SourceConfig
from bigchem.tasks import shipped

LINE_FORMATS = sorted(set(READERS) - {"synthetic", "datasets"})
FILE_FORMATS = [*LINE_FORMATS, "datasets"]
HEADERS = {
    "chebi20": "CID\tSMILES\tdescription",
    "rsmi": "ReactionSmiles\tYear",
    "reaction_csv": "class,reactants>reagents>production",
    "csv": "source,target",
    "tsv": "source\ttarget",
}
LAYOUTS = [
    {},
    {"smiles": "a", "text": "b"},
    {"source": "a", "target": "b", "task": "c"},
    {"reaction": "a"},
    {"text": "a"},
    {"smiles": "a"},
]


def second(name: str, path: Path | str) -> dict[str, str]:
    """The second file of the only format that has two."""
    return {"target_path": str(path)} if name == "parallel_text" else {}


def fuzzed(name: str, path: Path | str, **fields: object) -> SourceConfig:
    """A source in which every record has a task."""
    generic = name in ("jsonl", "csv", "tsv", "datasets") and not fields.get("columns")
    return config(name, path, **second(name, path), tasks=["forward"] if generic else [], **fields)


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_missing_or_unnamed_file_is_a_user_error(name, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(config(name, tmp_path / "none", **second(name, tmp_path / "none")))
    with pytest.raises(UserError, match="needs a file"):
        read(SourceConfig(format=name, split="train"))


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_table_without_its_columns_is_a_user_error(name, tmp_path):
    with pytest.raises(UserError, match="no column"):
        read(config(name, write(tmp_path, "a.txt", "some,other\tfile", "CC")))
    with pytest.raises(UserError, match="no column"):
        read(config(name, write(tmp_path, "empty.txt")))


@pytest.mark.parametrize("name", LINE_FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_garbage_is_rejected_and_never_crashes(name, seed, tmp_path):
    rng = random.Random(seed)
    file = tmp_path / "garbage"
    noise = bytes(rng.choice(b'\x00\n\t,.>|\\"{}[]()=#:~CNOcno019\xff\xe2\x82') for _ in range(20_000))
    file.write_bytes(
        HEADERS.get(name, "").encode() + b"\n" + noise + b"\n" + b"C" * 1_000_001 + b"\n" + rng.randbytes(5000)
    )
    rows, reasons = read(fuzzed(name, file))
    assert any("longer than" in reason for reason in reasons)
    if name not in ("parallel_text", "text_lines"):
        assert len(rows) <= 2 * len(reasons)
    assert all(row.key and row.source and (row.target or row.task.endswith("_spans")) for row in rows)


@pytest.mark.parametrize("name", FILE_FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_any_record_is_rows_or_a_row_error(name, data):
    field = st.text(alphabet="CNO[]()=#>|f:.,01~{}\"' \t\\\x00\u2581é", max_size=40)
    columns = data.draw(st.sampled_from(LAYOUTS)) if name in ("csv", "tsv", "jsonl", "datasets") else {}
    reactions = READERS[name].gives(shipped()["forward"]) and name != "parallel_text"
    options = {"products": "all"} if reactions else {}
    options |= {"chunk_chars": 10} if READERS[name].gives(shipped()["text_spans"]) else {}
    source = fuzzed(name, "file", columns=columns, augment=2, **options)
    rows, reason = [], "rows"
    try:
        rows = read_rows(Record("file", 1, tuple(data.draw(st.lists(field, max_size=3)))), source, shipped())
    except RowError as error:
        reason = str(error)
    assert 0 < len(reason) < 120
    assert all(reader(name).gives(shipped()[row.task]) for row in rows)


@pytest.mark.parametrize("name", LINE_FORMATS)
def test_truncated_or_corrupt_gzip_is_a_user_error(name, tmp_path):
    lines = "".join(f"{random.Random(i).random()}\n" for i in range(5000))
    whole = gzip.compress(f"{HEADERS.get(name, '')}\n{lines}".encode())
    damaged = whole[:2000] + bytes(200) + whole[2200:]
    for content in (whole[: len(whole) // 2], damaged, b"plain text\n"):
        file = tmp_path / "a.gz"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.gz: cannot read"):
            read(config(name, file, **second(name, file)))


@pytest.mark.parametrize("name", LINE_FORMATS)
def test_line_without_an_end_is_read_in_bounded_memory(name, tmp_path):
    file = tmp_path / "a.gz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        out.write(HEADERS.get(name, "").encode() + b"\n")
        for _ in range(64):
            out.write(b'"' + b"C" * (1 << 20))
    tracemalloc.start()
    rows, reasons = read(fuzzed(name, file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == []
    assert "longer than" in reasons[-1]
    assert peak < 20 << 20
