"""results.json, predictions and probe.json have the fields that docs/evaluation.md lists, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data
from bigchem.evaluate.run import evaluate
from bigchem.evaluate.subject import Subject

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def documented() -> dict[str, list[str]]:
    """Key -> the names in its description."""
    section = PAGE.read_text().split("## results.json")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section.split("### ")[0], re.MULTILINE)
    return {key: re.findall(r"`(\w+)`", text) for key, text in rows}


def test_results_have_the_documented_fields(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    about = {"run": "x", "preset": "sweep-1m", "mixture": {"forward": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("captioning",), tmp_path, 512, about)
    config = EvaluateConfig(max_rows=2, max_new_tokens=4, bootstrap=5)
    table = json.loads(evaluate(subject, config, progress=Progress(quiet=True)).read_text())
    fields = documented()
    assert table.keys() == fields.keys()
    for key in ("model", "decoding"):
        assert list(table[key]) == [name for name in fields[key] if name in table[key]]
    assert (len(table["model"]), len(table["decoding"])) == (4, 3)
    assert all(list(metric) == fields["metrics"] for metric in table["metrics"])
    assert table["sources_cut"].keys() == {"captioning"}
    line = json.loads((tmp_path / "predictions" / "captioning.jsonl").read_text().splitlines()[0])
    assert list(line) == ["row", "key", "source", "target", "predictions", "loss_and_tokens"]
    section = PAGE.read_text().split("`predictions/TASK.jsonl`")[1]
    assert all(f"`{name}`" in section for name in line)
    assert "## captioning: published on ChEBI-20's test split" in (tmp_path / "table.md").read_text()
