"""Work in tasks, through submitit's local executor: real processes, and the results of one process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reading import files_of
from runs import config_of

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.parts import begin
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.sources.base import SourceConfig
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.launch.cluster.arrays import one_process
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs.status import RunStatus
from bigchem.launch.workloads.build import build_in_tasks
from bigchem.launch.workloads.evaluate import Request, evaluate_here, evaluate_in_tasks
from bigchem.launch.workloads.sweep import SweepRun, _left_of

QUIET = Progress(quiet=True)
LOCAL = load_profile("local").model_copy(update={"max_concurrent": 2})
GPUS = ClusterProfile(executor="slurm", nodes=2, tasks_per_node=8, gpus_per_node=8, cpus_per_task=12, mem_gb=960)


def test_a_task_gets_a_process_or_a_node() -> None:
    predicts, parses = one_process(GPUS, gpu=True), one_process(GPUS, gpu=False)
    assert (predicts.world_size, predicts.gpus_per_node, predicts.cpus_per_task, predicts.mem_gb) == (1, 1, 12, 120)
    assert (parses.world_size, parses.gpus_per_node, parses.cpus_per_task, parses.mem_gb) == (1, 0, 96, 960)
    by_gpu = ClusterProfile(executor="slurm", tasks_per_node=4, gpus_per_node=4, mem_per_gpu_gb=60, gpu_type="h100")
    predicts, parses = one_process(by_gpu, gpu=True), one_process(by_gpu, gpu=False)
    assert (predicts.gpu_type, predicts.mem_per_gpu_gb, predicts.mem_gb) == ("h100", 60, None)
    assert (parses.gpu_type, parses.mem_per_gpu_gb, parses.mem_gb) == (None, None, 240)
    whole = GPUS.model_copy(update={"nodes_max": 4, "sbatch": {"exclusive": True, "nice": 3}})
    predicts, parses = one_process(whole, gpu=True), one_process(whole, gpu=False)
    assert (predicts.sbatch, parses.sbatch) == ({"nice": 3}, {"exclusive": True, "nice": 3})
    assert predicts.world_sizes == (1,)
    for made in (predicts, parses, one_process(load_profile("local"), gpu=True)):
        assert ClusterProfile.model_validate(made.model_dump()) == made


def test_a_task_that_fails_is_named_and_done_again_alone(tmp_path: Path) -> None:
    """A folder in place of one chunk's file stands for anything that can go wrong on a node."""
    sources = (
        SourceConfig(format="synthetic", split="train", rows=1200, seed=1),
        SourceConfig(format="synthetic", split="test", rows=40, seed=2),
    )
    config, out = BuildConfig(sources=sources, shard_rows=150), tmp_path / "data"
    begin(config, out, QUIET, 2, overwrite=False)
    parsed = tmp_path / ".data.partial" / "parsed"
    (parsed / "000-000001.arrow").mkdir(parents=True)
    with pytest.raises(UserError, match=r"parse: 1 of 2 tasks failed: 1; the first: IsADirectoryError") as error:
        build_in_tasks(config, out, LOCAL, 2, QUIET, workers=1)
    assert "IsADirectoryError" in Path(str(error.value.where)).read_text()
    before = {path: path.stat().st_mtime_ns for path in parsed.glob("*-000000.arrow")}
    assert len(before) == 2
    (parsed / "000-000001.arrow").rmdir()
    tasks_before = len(list((tmp_path / ".data.jobs").glob("*_submitted.pkl")))
    assert begin(config, out, QUIET, 2, overwrite=False).parse == (1,)  # type: ignore[union-attr]
    assert build_in_tasks(config, out, LOCAL, 2, QUIET, workers=1)
    assert tasks_before == 2
    build(config, tmp_path / "one", QUIET, workers=1)
    assert files_of(out) == files_of(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one"]


@pytest.fixture
def model_dir(small_data: Path, tmp_path: Path) -> Path:
    """A model of random weights with the small corpus's tokenizer."""
    from transformers import T5Config, T5ForConditionalGeneration

    from bigchem.model.presets import shape, to_hf_config

    torch.manual_seed(0)
    config = to_hf_config(shape("sweep-0.2m", Tokenizer.load(small_data / "tokenizer").vocab_size), 0.0)
    T5ForConditionalGeneration(T5Config(**config)).save_pretrained(tmp_path / "model")
    shutil.copytree(small_data / "tokenizer", tmp_path / "model", dirs_exist_ok=True)
    return tmp_path / "model"


@pytest.mark.slow
def test_tasks_predict_and_score_what_one_process_does(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    overrides = ("max_rows=8", "max_new_tokens=8", "batch_tokens=150", "bootstrap=10")
    asked = Request(
        model_dir,
        str(small_data),
        ("forward", "retrosynthesis"),
        tmp_path / "tasks",
        overrides,
        model_dir,
        ("random",),
        3,
    )
    results = evaluate_in_tasks(asked, LOCAL, 2, QUIET)
    assert results is not None
    whole = evaluate_here(replace(asked, out=tmp_path / "one"))
    assert results.read_bytes() == whole.read_bytes()
    assert '"metric": "round_trip"' in results.read_text()
    files = ["table.md", "predictions/forward.jsonl", "probe.json", "probe.md", "probe/random/results.json"]
    for name in files:
        assert (results.parent / name).read_bytes() == (whole.parent / name).read_bytes()
    assert (results.parent / "predictions" / "forward.rank1.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("state", "step", "active", "own", "at_end", "left"),
    [
        ("new", 0, False, True, True, "training"),
        ("failed", 3, False, True, True, "training"),
        ("lost", 3, False, False, False, "training"),
        ("running", 3, True, True, True, "nothing"),
        ("finished", 6, False, True, True, "nothing"),
        ("finished", 3, False, True, True, "training"),  # more steps are asked for than it was made for
        ("trained", 6, False, False, True, "training"),  # its own job evaluates
        ("trained", 6, False, True, False, "evaluation"),
        ("trained", 3, False, True, False, "training"),
        ("trained", 6, False, False, False, "nothing"),
        ("trained", 6, True, True, False, "nothing"),
    ],
)
def test_only_what_is_left_of_a_run_is_submitted(
    tmp_path: Path, state: str, step: int, active: bool, own: bool, at_end: bool, left: str
) -> None:
    """own: whether evaluations are separate jobs."""
    config = config_of(tmp_path, tmp_path, "x", evaluate={"at_end": at_end})
    run = SweepRun(config, LOCAL, GPUS if own else None)
    assert _left_of(run, RunStatus("x", state, active, step, 6)) == left
