"""Export of checkpoints with known weights: exact, streamed and resumable."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import SHAPE, copied, made_run, tampered, weights_after
from small_models import V1_0
from transformers import T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.cli import program
from bigchem.cli.main import app
from bigchem.export import export, model_folder
from bigchem.export.shards import INDEX
from bigchem.model.presets import PRESETS, num_parameters
from bigchem.model.weights.pretrained import load_pretrained, weights_of
from bigchem.plan import from_config
from bigchem.train.checkpoint.store import Manifest, step_name

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("shard_size", "workers"), [("5GB", 1), ("8KB", 3)])
def test_every_weight_is_the_checkpoints_or_it_rounded(
    run: Path, tmp_path: Path, bf16: bool, shard_size: str, workers: int
) -> None:
    made = export(run, tmp_path / "out", bf16=bf16, shard_size=shard_size, workers=workers)
    expected = weights_after(9, SHAPE)
    dtype = torch.bfloat16 if bf16 else torch.float32
    assert (tmp_path / "out" / INDEX).is_file() == (shard_size == "8KB") == (len(made.files) > 1)
    found = dict(weights_of(tmp_path / "out"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight.to(dtype)) for name, weight in expected.items())
    theirs = T5ForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(theirs.lm_head.weight, expected["lm_head.weight"].to(dtype).float())
    ours = load_pretrained(tmp_path / "out")  # what model.init_from does
    assert torch.equal(ours.shared.weight, expected["shared.weight"].to(dtype).float())
    assert theirs.generation_config.decoder_start_token_id == 0


def test_a_tied_embedding_is_written_once(tmp_path: Path) -> None:
    made = export(made_run(tmp_path / "run", V1_0, 1), tmp_path / "out")
    assert "lm_head.weight" not in dict(weights_of(made.model_dir))
    theirs = T5ForConditionalGeneration.from_pretrained(made.model_dir)
    assert theirs.lm_head.weight.data_ptr() == theirs.shared.weight.data_ptr()
    assert made.loss == pytest.approx(made.recorded, rel=1e-9)


def test_every_weight_is_read_once_and_no_moment(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, plainly = [], os.preadv

    def counting(file: int, buffers: Any, at: int) -> int:
        read.append(plainly(file, buffers, at))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counting)
    export(run, tmp_path / "out", hashes=False)
    assert sum(read) == 4 * num_parameters(SHAPE)


def test_the_mean_of_checkpoints_is_their_mean_and_each_is_proven(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out", average=3)
    members = [weights_after(step, SHAPE) for step in (3, 6, 9)]
    for name, weight in weights_of(made.model_dir):
        torch.testing.assert_close(weight, torch.stack([member[name] for member in members]).mean(dim=0))
    assert made.averaged == (3, 6, 9)
    assert made.loss == pytest.approx(made.recorded, rel=1e-6)
    assert made.mean_loss != pytest.approx(made.loss, rel=1e-4)
    assert "mean of the checkpoints after steps 3, 6, 9" in (made.model_dir / "README.md").read_text()
    assert export(run, tmp_path / "two", step=6, average=2).averaged == (3, 6)


def test_the_running_mean_is_written_and_the_weights_are_proven(tmp_path: Path) -> None:
    made = export(made_run(tmp_path / "run", SHAPE, 2, ema=True), tmp_path / "out", ema=True)
    expected = weights_after(2, SHAPE)
    assert all(torch.equal(mean, expected[name] / 2) for name, mean in weights_of(made.model_dir))
    assert made.loss == pytest.approx(made.recorded, rel=1e-6)
    assert made.ema_loss != pytest.approx(made.loss, rel=1e-4)


def test_the_pages_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "runs" / "second", SHAPE, 3, 6, 9, ema=True)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "consolidation.md").read_text()
    for command in "".join(re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)).splitlines():
        program_name, tool, *arguments = shlex.split(command)
        if tool == "push":  # this run has no data folder
            arguments.append("--unknown-data")
        monkeypatch.setattr(sys, "argv", ["bigchem", tool, *arguments])
        with pytest.raises(SystemExit) as stop:
            program.run(app)
        assert (program_name, stop.value.code) == ("bigchem", 0), command
        assert tool != "export" or T5ForConditionalGeneration.from_pretrained(arguments[1])


def test_as_many_threads_hash_as_there_are_cores_up_to_a_limit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(checkpoint: Path, manifest: Manifest, workers: int, progress: Progress, *, hashes: bool) -> None:
        asked.append(workers)
        raise UserError("enough")

    monkeypatch.setattr("bigchem.export.consolidate.check_files", note)
    for cores in (3, 100):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        with pytest.raises(UserError, match="enough"):
            export(run, tmp_path / "out")
    assert asked == [3, 8]


def test_a_choice_among_checkpoints(run: Path, tmp_path: Path) -> None:
    with_best = copied(run, tmp_path / "run")
    state = {"validation": {"metric": "loss", "keep": True, "value": 1.0, "step": 6, "since": 1}}
    tampered(with_best, 9, state=state)
    steps = {which: export(with_best, tmp_path / str(which), step=which).step for which in (None, "best", "latest", 3)}
    assert steps == {None: 6, "best": 6, "latest": 9, 3: 3}
    checkpoint = with_best / "checkpoints" / step_name(3)
    assert export(checkpoint, tmp_path / "given").step == 3
    with pytest.raises(UserError, match="is already a single checkpoint"):
        export(checkpoint, tmp_path / "twice", step=3)


@pytest.mark.parametrize("other", [{"bf16": True}, {"average": 2}])
def test_another_model_in_a_runs_folder_is_not_taken_for_its_own(
    run: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    own = copied(run, tmp_path / "run")
    (own / "config.toml").touch()
    export(own, own / "model", **other)
    weights = dict(weights_of(model_folder(own)))
    assert all(torch.equal(weights[name], weight) for name, weight in weights_after(9, SHAPE).items())
    made = (own / "model" / "model.safetensors").stat().st_ino
    assert (model_folder(own) / "model.safetensors").stat().st_ino == made


def test_the_tool_prints_json_and_the_card_has_the_losses_of_the_step(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = copied(run, tmp_path / "run")
    row = {"step": 9, "loss": 2.5, "loss/forward": 2.25, "valid_loss": 3.5, "lr": 0.1}
    (evaluated / "metrics.jsonl").write_text(
        json.dumps(row | {"loss": 9.0}) + "\n" + json.dumps(row) + "\n" + '{"step": 9, "l'
    )
    monkeypatch.setattr(
        sys, "argv", ["bigchem", "export", str(evaluated), str(tmp_path / "out"), "--step", "latest", "--json"]
    )
    with pytest.raises(SystemExit) as stop:
        program.run(app)
    assert stop.value.code == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["step"], table["averaged"], list(table["files"])) == (9, [], ["model.safetensors"])
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "| training loss | 2.5000 nats per target token |",
        "| training loss, forward | 2.2500 nats per target token |",
        "| validation loss | 3.5000 nats per target token |",
        f"`{'f' * 16}`",
        "| steps | 9 |",
        f"probe loss {table['loss']:.6f}",
    ):
        assert line in card


KILLED = """
import os, signal, sys
from pathlib import Path
from bigchem.export import export, shards

written, plainly = [], shards.write_shard

def write(path, shapes, dtype, pieces, progress):
    def cut():
        for piece in pieces:
            yield piece
            if len(written) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
    known = plainly(path, shapes, dtype, cut(), progress)
    written.append(path)
    return known

shards.write_shard = write
export(Path(sys.argv[1]), Path(sys.argv[2]), shard_size="8KB")
"""


def test_a_killed_conversion_goes_on_with_its_whole_files(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(run), str(tmp_path / "out")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    partial = tmp_path / ".out.partial"
    before = {path.name: path.stat().st_ino for path in partial.glob("model-*")}
    assert len(before) == 3
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "out", shard_size="8KB")
    export(run, tmp_path / "whole", shard_size="8KB")
    complete = sorted(before)[:2]
    assert [(tmp_path / "out" / name).stat().st_ino for name in complete] == [before[name] for name in complete]
    for path in (tmp_path / "whole").glob("model*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not partial.exists()


MEMORY = """
import os, sys
from pathlib import Path
from transformers import T5ForConditionalGeneration
from bigchem.export import export

os.sched_getaffinity = lambda pid: range(8)

def memory(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

before = memory("VmRSS")
export(Path(sys.argv[1]), Path(sys.argv[2]), shard_size="66MB")
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_below_the_largest_parameter_and_a_shard(tmp_path: Path) -> None:
    """t5-small has 60.5 M parameters: 242 MB of weights, 726 MB of checkpoint; its embedding has 66 MB."""
    shape = PRESETS["t5-small"]
    run = made_run(tmp_path / "run", shape, 1, world_size=2)
    embedding = shape.vocab_size * shape.d_model * 4
    ceiling = 1.25 * (embedding + 66e6)
    checkpoint = run / "checkpoints" / step_name(1)
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) > 4 * ceiling
    command = [sys.executable, "-c", MEMORY, str(run), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < ceiling < 4 * num_parameters(shape)
    assert int(done.stdout) < embedding + from_config.CONSOLIDATION  # the planner's estimate
    shutil.rmtree(tmp_path)  # it is large
