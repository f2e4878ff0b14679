"""Hugging Face datasets: real ones on disk, and the library's errors."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from reading import config, read

from bigchem.base.errors import UserError
from bigchem.data.sources import reader
from bigchem.data.sources.base import Row
from bigchem.tasks import shipped

PAIR = {"smiles": "SMILES", "text": "about"}
TABLE = {"n": [1, 2, 3], "about": ["Water", None, "Ethanol"], "SMILES": ["O", "C", "C1"], "photo": [b"x" * 99] * 3}
WATER = [Row("captioning", "O", "Water", "O"), Row("generation", "Water", "O", "O")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    table = Dataset.from_dict(TABLE)
    plain = table.remove_columns("photo")
    table.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "splits")
    (tmp_path / "files").mkdir()
    table.to_parquet(tmp_path / "files" / "train-00000.parquet")
    table.select([0]).to_parquet(tmp_path / "files" / "test-00000.parquet")
    plain.to_json(tmp_path / "a.jsonl")
    plain.to_csv(tmp_path / "a.csv")
    return tmp_path


@pytest.mark.parametrize("name", ["saved", "splits", "files", "files/train-00000.parquet", "a.jsonl", "a.csv"])
def test_every_kind_of_local_dataset_gives_the_named_columns(name, folder):
    source = config("datasets", folder / name, columns=PAIR)
    records = list(reader("datasets").records(source, shipped()))
    assert [(r.line, r.fields) for r in records] == [(1, ("O", "Water")), (2, ("C", "")), (3, ("C1", "Ethanol"))]
    assert read(source) == (WATER, ["empty text", "RDKit cannot read 'C1'"])


@pytest.mark.parametrize("name", ["splits", "files"])
def test_split_of_the_dataset_is_chosen(name, folder):
    assert read(config("datasets", folder / name, columns=PAIR, hub_split="test")) == (WATER, [])


def test_generic_columns_need_not_be_named_and_the_task_may_be_missing(tmp_path):
    Dataset.from_dict({"target": ["STIR."], "source": ["Stir."]}).to_parquet(tmp_path / "a.parquet")
    rows, _ = read(config("datasets", tmp_path / "a.parquet", tasks=["actions"]))
    assert rows == [Row("actions", "Stir.", "STIR.")]


def test_long_documents_become_pieces(tmp_path):
    Dataset.from_dict({"body": ["water " * 50_000]}).save_to_disk(tmp_path / "saved")
    rows, reasons = read(config("datasets", tmp_path / "saved", columns={"text": "body"}))
    assert (len(rows), reasons) == (151, [])


def test_other_columns_of_parquet_are_not_read(folder, monkeypatch):
    """A file with a damaged column that is not needed is still read."""
    path = folder / "files" / "train-00000.parquet"
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    start, size = columns["photo"].dictionary_page_offset, columns["photo"].total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    assert read(config("datasets", path, columns=PAIR))[0] == WATER


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": {"text": "nothing"}}, "no column 'nothing'; there are: n, about, SMILES"),
        ({"columns": {"text": "n"}}, "column 'n' contains int, not text"),
        ({"columns": PAIR, "hub_split": "gold"}, "(split.*gold|leave hub_split out)"),
    ],
)
@pytest.mark.parametrize("name", ["saved", "splits", "files", "a.jsonl"])
def test_wrong_column_or_split_is_a_user_error(name, fields, message, folder):
    with pytest.raises(UserError, match=message):
        read(config("datasets", folder / name, **fields))


@pytest.mark.parametrize("name", ["saved", "a.jsonl"])
def test_configuration_of_what_has_none_is_a_user_error(name, folder):
    with pytest.raises(UserError, match="leave config_name out"):
        read(config("datasets", folder / name, columns=PAIR, config_name="small"))


DAMAGED = [b"", random.Random(0).randbytes(5000), b"PAR1" + bytes(2000) + b"PAR1", b"ARROW1", b'{"a": "', b'a,"']


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "a.csv", "a.jsonl.gz", "a.xyz", "empty", "saved"])
@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_dataset_is_a_user_error_of_one_line(name, content, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_bytes(content)
    file = tmp_path / name
    if not file.is_dir():
        file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(config("datasets", file, columns=PAIR))
    assert raised.value.where == str(file)
    assert "\n" not in raised.value.what


def test_hub_without_a_network_is_a_user_error_that_names_the_dataset(tmp_path):
    code = (
        "from bigchem.data.sources import reader; from bigchem.data.sources.base import SourceConfig as S;"
        "from bigchem.tasks import shipped;"
        "list(reader('datasets').records(S(format='datasets', split='train', hub='owner/name'), shipped()))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert "UserError: owner/name: datasets cannot load it: " in done.stderr
    assert "use path" in done.stderr
