"""The benchmark of scoring compares values and refuses unequal ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.bench.metrics import generating
from bigchem.bench.metrics_once import ours, plain_generation
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model.presets import shape, to_hf_config

TOOLS = Path(__file__).parents[2] / "tools"
PAIRS = [("CCO", "OCC"), ("CC(=O)[O-]", "CC(=O)O"), ("c1ccccc1O", "C("), ("C[C@H](N)O", "CC(N)O")]


def written(path: Path) -> Path:
    rows = [{"source": "s", "target": target, "prediction": prediction} for target, prediction in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_straightforward_values_are_those_of_score(tmp_path: Path) -> None:
    plain = plain_generation(*map(list, zip(*PAIRS, strict=True)))
    found = ours("molecule", set(plain), written(tmp_path / "p.jsonl"), 1)
    assert found.keys() == plain.keys()
    assert all(abs(found[name] - plain[name]) < 1e-9 for name in plain)


@pytest.mark.thorough
def test_the_program_prints_figures_with_their_targets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "bench", "metrics", "--turns", "1", "--workers", "1", "--json"]
    file = written(tmp_path / "p.jsonl")
    done = subprocess.run([*command, "--generation", str(file)], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert [figure["asked"] for figure in figures] == [None, None, None, None, 4.0]


def test_beam_search_gives_equal_outputs_and_is_timed_beside_both_batches(small_data: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(num_beams=2, max_new_tokens=4, batch_tokens=300)
    torch.manual_seed(0)
    shutil.copytree(small_data / "tokenizer", tmp_path, dirs_exist_ok=True)
    table = to_hf_config(shape("sweep-0.2m", Tokenizer.load(tmp_path).vocab_size), 0.0)
    T5ForConditionalGeneration(T5Config(**table)).save_pretrained(tmp_path)
    figures = generating(tmp_path, Data(small_data), 4, config, turns=1)
    seconds, (same, memory, equal) = figures[:3], figures[3:]
    assert "20 rows" in seconds[0].name
    assert (same.value, same.holds) == (100, True)
    assert memory.asked == 3
    assert memory.value == seconds[1].value / seconds[0].value
    assert equal.value == seconds[2].value / seconds[0].value
