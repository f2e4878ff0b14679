"""Audits of data folders, recipes and plain files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.inspect.audit import audit, print_audit
from bigchem.data.storage.shards import Data
from bigchem.data.text.tally import Limits
from bigchem.data.text.tokenizer import Tokenizer

QUIET = Progress(quiet=True)
RECIPE = '[[sources]]\nformat = "synthetic"\nsplit = "train"\nrows = 450\nseed = 1\n'
OTHER_COLUMNS = """
max_lossy = 1.0
[tokenizer]
vocab_size = 320
[tasks.binding]
source = "chemistry"
target = "number"
prompt = ["Affinity of {source} to {protein}: ", "How well does {source} bind?"]
[[sources]]
format = "csv"
path = "rows.csv"
columns = { source = "smiles", target = "y" }
tasks = ["binding"]
split = "train"
[[sources]]
format = "text_lines"
path = "lines.txt"
split = "train"
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that knows the letters C, N and O and digits."""
    folder = tmp_path_factory.mktemp("plain")
    Tokenizer.train(["CCO", "CNO 12"] * 10, 300).save(folder)
    return folder


def test_figures_of_a_data_folder_are_those_of_its_index(small_data: Path) -> None:
    found = audit(str(small_data), QUIET, Limits(max_source_tokens=40, max_target_tokens=20), workers=2)
    assert [row["split"] for row in found] == sorted((row["split"] for row in found), reverse=True)  # train, test
    for row in found:
        lengths = Data(small_data).split(row["split"], row["task"]).lengths[:, int(row["side"] == "target")]
        assert row["texts"] == len(lengths)
        assert (row["not_exact"], row["with_unknown"], row["lost"]) == (0, 0, [])
        for percent in (50, 90, 99):
            assert row[f"p{percent}"] == np.percentile(lengths, percent, method="inverted_cdf")
        assert row["max"] == row["longest"][0]["tokens"] == lengths.max()
        assert row["over"] == (lengths > row["limit"]).sum()
    assert any(row["over"] for row in found)
    assert len({(row["split"], row["task"], row["side"]) for row in found}) == len(found) == 20


def test_a_recipe_is_audited_with_the_tokenizer_it_names_and_nothing_is_written(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = str(tmp_path / "recipe.toml")
    whole = audit(recipe, QUIET, Limits(), workers=2)
    assert all(row["not_exact"] == 0 for row in whole)
    assert sum(row["texts"] for row in whole) == 2 * 450
    atoms = audit(recipe, QUIET, Limits(), workers=1, overrides=("tokenizer.smiles=atoms",))
    assert all(row["not_exact"] == 0 for row in atoms)
    assert [row["tokens_per_text"] for row in atoms] != [row["tokens_per_text"] for row in whole]
    few = audit(recipe, QUIET, Limits(), workers=1, overrides=("limit=10",), tokenizer=plain)
    assert sum(row["texts"] for row in few) == 2 * 10
    assert all(row["not_exact"] == row["texts"] for row in few if row["side"] == "source")
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_recipe_with_other_columns_in_its_prompts_is_audited_with_the_tokenizer_of_its_build(tmp_path: Path) -> None:
    rows = "".join(f"{'C' * n}N,M{'KV' * n},{n / 7:.2f}\n" for n in (1, 2, 3, 4, 4, 4, 5))
    (tmp_path / "rows.csv").write_text(f"smiles,protein,y\n{rows}")
    (tmp_path / "lines.txt").write_text("Stir <extra_id_0> well.\nFilter.\n")
    (tmp_path / "recipe.toml").write_text(OTHER_COLUMNS)
    recipe = str(tmp_path / "recipe.toml")
    build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "data", QUIET, workers=1)
    own = audit(recipe, QUIET, Limits(), workers=1)
    assert own == audit(recipe, QUIET, Limits(), workers=1, tokenizer=Data(tmp_path / "data").tokenizer_dir)


def lines_of(path: Path, plain: Path, **limits: int) -> dict[str, Any]:
    (row,) = audit(str(path), QUIET, Limits(**limits), tokenizer=plain, workers=1)
    return row


def test_what_a_plain_file_loses_is_counted_with_the_first_difference(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "a.txt").write_text("CCO\nCCX\n\nCNOO XX\nNNNNNNNN\nXX\n")
    row = lines_of(tmp_path / "a.txt", plain, examples=2, max_source_tokens=7)
    assert (row["texts"], row["not_exact"], row["with_unknown"]) == (5, 3, 3)
    assert row["unknown_rate"] == pytest.approx(3 / (row["tokens_per_text"] * 5))
    assert [(lost["text"], lost["at"], lost["found"]) for lost in row["lost"]] == [
        ("CCX", 2, "CC<unk>"),
        ("CNOO XX", 5, "CNOO <unk>"),
    ]
    assert row["longest"][0]["text"] == "NNNNNNNN"
    assert row["over"] == 1


def test_of_a_smi_file_the_molecules_are_read_packed_too(tmp_path: Path, plain: Path) -> None:
    with gzip.open(tmp_path / "a.smi.gz", "wt") as file:
        file.write("CCO\tethanol\nCNO name X\n")
    row = lines_of(tmp_path / "a.smi.gz", plain)
    assert (row["texts"], row["not_exact"], row["max"]) == (2, 0, row["longest"][0]["tokens"])


def test_mistakes_are_told(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "a.txt").write_text("\n")
    for path, tokenizer, message in (
        (tmp_path / "a.txt", None, "add --tokenizer"),
        (tmp_path / "a.txt", plain, "contains no text"),
        (tmp_path / "a.txt", tmp_path, "no tokenizer here"),
        (tmp_path / "none.txt", plain, "no such file"),
        (tmp_path, plain, "index.json is missing"),
    ):
        with pytest.raises(UserError, match=message):
            audit(str(path), QUIET, Limits(), tokenizer=tokenizer, workers=1)


def test_the_command_prints_json_and_a_table_of_the_same_figures(
    tmp_path: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("CCO\nCX [/bold]\n")
    command = [sys.executable, "-m", "bigchem", "data", "audit", "a.txt", "--tokenizer", str(plain), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found[0]["data"], found[0]["texts"], found[0]["not_exact"]) == ("a.txt", 2, 1)
    print_audit(found)
    output = capsys.readouterr().out
    assert "50.00 %" in output
    assert "lost: a.txt line: at 1: 'CX [/bold]' became 'C<unk> <unk>" in output
