"""The public files, all of them: they build, and a small model's loss falls on every task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distributed import run_ranks
from real_files import REAL_DATA
from runs import config_of, train_here

from bigchem.base.installed import resources
from bigchem.base.progress import Progress
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.storage.shards import Data
from bigchem.tasks import shipped

pytestmark = pytest.mark.heavy

STEPS = 100


@pytest.fixture(scope="module")
def slice_of_everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first records of every public file, with T5's vocabulary."""
    overrides = (f"root={REAL_DATA}", f"limit={request.param}", f"tokenizer.t5={REAL_DATA.parent / 'vocab' / 't5'}")
    config = load_recipe(resources.find("recipes", "public-data", ".toml"), overrides)
    out = tmp_path_factory.mktemp("real") / "data"
    build(config, out, Progress(quiet=True), workers=2)
    return out


@pytest.mark.data
@pytest.mark.parametrize("slice_of_everything", [100, pytest.param(400, marks=pytest.mark.slow)], indirect=True)
def test_every_public_file_is_read(slice_of_everything: Path) -> None:
    index = Data(slice_of_everything).index
    sources = index.report["sources"]
    paths = [REAL_DATA / source["source"].split(" ")[1] for source in sources]
    ignored = {"test_human.txt"}
    # Of folders that the recipe reads, every file; what else lies beside them is not this test's.
    beside = {file for folder in {path.parent for path in paths} for file in folder.iterdir() if file.is_file()}
    files = {file.name for file in beside if "LICENSE" not in file.name and "tgt" not in file.name}
    assert len(files) > 5
    assert files - ignored <= {path.name for path in paths}
    assert set(index.rows("train")) == set(shipped().scored)
    assert sum(source.get("rejected", 0) for source in sources) < 20


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("slice_of_everything", [400], indirect=True)
def test_the_loss_of_every_task_falls_within_100_steps(slice_of_everything: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        slice_of_everything,
        "real",
        data={"global_tokens": 2500, "micro_tokens": 1250, "max_source_tokens": 512, "max_target_tokens": 512},
        train={"steps": STEPS, "log_every": 10},
        optimizer={"lr": 3e-3},
        schedule={"warmup_steps": 20},
        checkpoint={"every": STEPS},
    )
    run_ranks(train_here, 2, config, timeout=400)
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    for task in shipped().scored:
        losses = [row[f"loss/{task}"] for row in rows if f"loss/{task}" in row]
        first, last = losses[0], sum(losses[-2:]) / 2
        print(f"{task}: {first:.2f} -> {last:.2f}")
        assert last < 0.75 * first, f"{task}: {first:.2f} -> {last:.2f}"
