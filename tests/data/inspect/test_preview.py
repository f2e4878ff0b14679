"""`bigchem data preview` shows what the ranks get."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bigchem.base import toml
from bigchem.base.installed import resources
from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.step_plan import flops_cost
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer


def settings(data: Path) -> tuple[str, ...]:
    return (f"data.path={data}", "data.global_tokens=4000", "data.micro_tokens=1000", "model.preset=sweep-1m")


def preview(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    overrides = [word for setting in settings(data) for word in ("--set", setting)]
    command = [sys.executable, "-m", "bigchem", "data", "preview", "demo", *overrides, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lines(data: Path, *arguments: str) -> list[dict[str, object]]:
    done = preview(data, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_line_is_a_micro_batch_as_the_loader_of_that_rank_reads_it(small_data: Path) -> None:
    printed = lines(small_data, "--start-step", "3", "--steps", "2", "--world-size", "2")
    config = toml.load(RunConfig, resources.find("recipes", "demo", ".toml"), settings(small_data))
    data = Data(small_data)
    cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
    expected = []
    for rank in range(2):
        loader = Loader(data, config.data, config.seed, rank, 2, cost)
        position = loader.plan.steps.position_of(3)
        for step in (3, 4):
            loaded = loader.load(loader.plan.steps.at(position))
            for micro, batch in enumerate(loaded.micro_batches):
                counts = [int((batch.task_ids == task).sum()) for task in range(5)]
                tokens = (len(batch.source_ids), len(batch.target_ids))
                expected.append((step, rank, micro, *tokens, counts))
            position = loaded.step.stop
    names = ("captioning", "generation", "forward", "retrosynthesis", "actions")
    found = [
        (
            *(line[name] for name in ("step", "rank", "micro", "source_tokens", "target_tokens")),
            [line["task_counts"][name] for name in names],  # type: ignore[index]
        )
        for line in printed
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert list(printed[0]) == ["step", "rank", "micro", "task_counts", "source_tokens", "target_tokens", "keys"]


def test_every_world_size_and_accumulation_sees_the_same_keys_step_by_step(small_data: Path) -> None:
    by_step = []
    for arguments in (("1",), ("3",), ("2", "--grad-accum", "5"), ("7",)):
        printed = lines(small_data, "--start-step", "5", "--steps", "3", "--world-size", *arguments)
        steps: dict[int, list[str]] = {}
        for line in printed:
            steps.setdefault(line["step"], []).extend(line["keys"])  # type: ignore[arg-type, call-overload]
        by_step.append({step: sorted(keys) for step, keys in steps.items()})
        if len(arguments) > 1:
            assert {line["micro"] for line in printed} == set(range(5))
    assert list(by_step[0]) == [5, 6, 7]
    assert all(found == by_step[0] for found in by_step[1:])


def test_the_table_names_tasks_and_realised_proportions(small_data: Path) -> None:
    output = preview(small_data, "--steps", "2", "--world-size", "4").stdout
    for word in ("captioning", "actions", "20%", "requested", "schedule", "fill", "on 4 ranks"):
        assert word in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start-step", "155", "--steps", "10"), "the run has 160"),
        (("--world-size", "1", "--grad-accum", "2"), "does not fit into 1 x 2 micro-batches of 1,000"),
    ],
)
def test_what_cannot_be_is_a_user_error(small_data: Path, arguments: tuple[str, ...], message: str) -> None:
    done = preview(small_data, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_steps_up_to_the_end_of_capped_data_are_shown_and_none_beyond_it(small_data: Path) -> None:
    capped = ("--world-size", "2", "--set", "data.max_epochs=1", "--set", "train.steps=220")
    done = preview(small_data, *capped, "--steps", "200")
    assert done.returncode == 0, done.stderr
    end = int(re.search(r"the data ends before step (\d+)", done.stderr)[1])  # type: ignore[index]
    total = sum(Data(small_data).index.rows("train").values())
    assert f"{total}" in done.stdout
    assert preview(small_data, *capped, "--start-step", str(end - 1), "--steps", "1").returncode == 0
    for start in (end, end + 1):
        beyond = preview(small_data, *capped, "--start-step", str(start), "--steps", "1")
        assert beyond.returncode == 2
        assert f"used up after {total} examples" in beyond.stderr
        assert "Traceback" not in beyond.stderr


def test_it_imports_neither_torch_nor_transformers(small_data: Path) -> None:
    code = (
        "import atexit, sys; sys.argv = ['bigchem', 'data', 'preview', 'demo', *sys.argv[1:]]\n"
        "atexit.register(lambda: print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules]))\n"
        "from bigchem.cli.main import main; main()"
    )
    overrides = [word for setting in settings(small_data) for word in ("--set", setting)]
    done = subprocess.run([sys.executable, "-c", code, *overrides], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
