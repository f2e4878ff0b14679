"""bigchem plan on the command line: table and JSON, the recommended row, the file it writes, and its page."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import config_of

from bigchem.base import toml
from bigchem.cli import program
from bigchem.cli.main import app
from bigchem.config import RunConfig
from bigchem.ds_config import ds_config_for
from bigchem.model import presets
from bigchem.plan import from_config
from bigchem.plan.choices import Room, choices
from bigchem.plan.speed.step_time import Assumptions

ROOT = Path(__file__).parents[3]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def call(*words: str, cwd: Path | None = None) -> Done:
    """Runs the program in this process: forty new processes would take half a minute."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, ["bigchem", "plan", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), chdir(cwd or Path.cwd()):
            program.run(app)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Done(code, out.getvalue(), err.getvalue())


def plan(*words: str) -> dict[str, Any]:
    done = call(*words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_table_and_the_json_are_the_same(tmp_path: Path) -> None:
    words = ("t5-large", "--gpus", "4", "--gpu-memory", "24GB")
    found, output = plan(*words), call(*words).stdout
    lines = [line for line in output.splitlines() if re.search(r" (ok|tight|no) ", line) and "zero" in line[:20]]
    assert len(lines) == len(found["rows"])
    for line, row in zip(lines, found["rows"], strict=True):
        assert row["ds_config"] in line
        assert row["why"] in line
        assert f" {row['micro_tokens']:,} " in line
        assert line.lstrip().startswith(">") == row["recommended"]
        assert row["allocated_bytes"] == sum(row["items"].values())
        assert (row["verdict"] == "ok") == (row["gpu_bytes"] <= found["gpu_bytes"])
        assert (row["why"].count("over") == 1) == (row["verdict"] != "ok")
    assert found["recommended"] in output
    assert "an estimate, not measured" in output


def test_the_recommended_row_fits_and_nothing_that_fits_is_much_faster() -> None:
    rows = plan("t5-large", "--gpus", "4", "--gpu-memory", "24GB")["rows"]
    (best,) = [row for row in rows if row["recommended"]]
    assert best["verdict"] == "ok"
    roomy = [row for row in rows if row["gpu_bytes"] <= 0.9 * 24e9]
    assert best in roomy
    assert best["tokens_per_s"] >= 0.9 * max(row["tokens_per_s"] for row in roomy)
    assert {row["verdict"] for row in rows} >= {"ok", "no"}


def test_a_row_that_nearly_fills_the_gpu_is_recommended_only_where_no_other_fits() -> None:
    rows = plan("t5-large", "--gpus", "1", "--gpu-memory", "24GB")["rows"]
    full = max((row for row in rows if row["verdict"] == "ok"), key=lambda row: row["gpu_bytes"])
    assert full["gpu_bytes"] > 0.9 * 24e9
    assert not full["recommended"]
    least = min(row["gpu_bytes"] for row in rows)
    found = plan("t5-large", "--gpus", "1", "--gpu-memory", f"{1.01 * least / 1e9:.2f}GB")
    assert any(row["recommended"] for row in found["rows"])
    assert found["recommended"].endswith("that fit")


def test_another_memory_than_the_cards_is_told_to_have_its_speed() -> None:
    assert (
        "speeds are those of h100, which has 80 GB: --gpu v100-16 | " in call("t5-base", "--gpu-memory", "24GB").stdout
    )
    assert "speeds are those of" not in call("t5-base", "--gpu", "a10").stdout


def test_where_nothing_fits_the_nearest_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    words = ("t5-11b", "--gpus", "1", "--gpu-memory", "6GB")
    found = plan(*words)
    assert not any(row["recommended"] for row in found["rows"])
    assert found["recommended"].startswith("nothing fits; the smallest is ")
    done = call(*words, "--write", str(tmp_path / "ds.json"))
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_what_it_writes_is_a_configuration_that_training_takes(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text(toml.dump(config_of(tmp_path, small_data, "planned", train={"precision": "bf16"})))
    done = call("run.toml", "--gpus", "2", "--micro-tokens", "600", "--write", "ds.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("wrote ")]
    options = shlex.split(line.split("in the run: ")[1])
    config = toml.load(RunConfig, run, [word for word in options if word != "--set"])
    assert config.data.micro_tokens == 600
    table = json.loads((tmp_path / "ds.json").read_text())["zero_optimization"]
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"ds_config": str(tmp_path / "ds.json")})}
    )
    assert ds_config_for(config, 2)["zero_optimization"] == table
    assert table.get("reduce_bucket_size", 219_120) == 219_120  # at most the model's parameters
    assert "the data's: longest" in done.stdout


def test_a_configuration_that_the_run_cannot_use_is_left_out_with_the_reason() -> None:
    found = plan("t5-small", "--gpus", "2", "--set", "optimizer.kind=adafactor")
    assert {row["ds_config"] for row in found["rows"]} == {"zero0"}
    assert "needs whole matrices" in found["left_out"]["zero1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("t5-bas",), "did you mean"),
        (("t5-base", "--nodes", "2"), "--interconnect"),
        (("t5-base", "--interconnect", "ib-hdr"), "--nodes"),
        (
            ("t5-base", "--nodes", "2", "--write", "x.json", "--calibrate"),
            "error: --nodes, --write: --calibrate measures",
        ),
        (("t5-base", "--micro-tokens", "1000000"), "more than a step's"),
        (("t5-base", "--gpus", "4096", "--calibrate"), "cannot measure 4096 ranks: this machine has"),
        (("t5-base", "--gpu-memory", "much"), "--gpu-memory"),
        (("t5-base", "--tune", "local", "--gpus", "2", "--calibrate"), "error: --gpus, --calibrate: --tune takes"),
        (("t5-base", "--tune", "locale"), "did you mean 'local'"),
        (("t5-base", "--tune", "local", "--set", "data.path=none"), "none"),
        (("t5-base", "--gpu", "v100-32"), "v100-32 has no known peak in bf16"),
        (("t5-base", "--steps", "10", "--tokens", "10"), "--steps, --tokens"),
        (("t5-base", "--gpu", "none.toml"), "none.toml"),
        (("t5-base", "--micro-tokens", "100"), "cannot hold the longest example, 1,024"),
        (("t5-base", "--set", "train.precison=bf16"), "precision"),
    ],
)
def test_mistakes_are_told_in_two_lines(words: tuple[str, ...], message: str) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_no_file_is_written_over_but_one_of_its_own(tmp_path: Path) -> None:
    words = ("t5-small", "--gpus", "1", "--write")
    theirs, own = tmp_path / "run.json", tmp_path / "own.json"
    theirs.write_text('{"name": "mine"}')
    assert "was not written by bigchem plan" in call(*words, str(theirs)).stderr
    assert theirs.read_text() == '{"name": "mine"}'
    assert "--write run.json" in call(*words, "run.toml").stderr
    assert "no such folder" in call(*words, str(tmp_path / "none" / "own.json")).stderr
    for _ in range(2):
        assert call(*words, str(own)).returncode == 0
    assert json.loads(own.read_text()).keys() == {"zero_optimization"}


def test_it_needs_neither_torch_nor_time(tmp_path: Path) -> None:
    code = (
        "import sys; from bigchem.cli.main import main; sys.argv = ['bigchem', 'plan', 't5-base', '--json']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


CONFIG_JSON = {
    "model_type": "t5",
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def test_a_folder_of_hugging_face_is_planned_as_the_preset_of_its_shape(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG_JSON))
    preset = plan("t5-v1_1-small", "--gpus", "2")
    for name in (str(tmp_path / "model"), str(tmp_path / "model" / "config.json")):
        found = plan(name, "--gpus", "2")
        assert found["parameters"] == preset["parameters"] == 76_961_152
        assert found["rows"] == preset["rows"]
        assert found["model"] == str(tmp_path / "model")
    assert "no config.json" in call(str(tmp_path)).stderr
    (tmp_path / "model" / "config.json").write_text(json.dumps({**CONFIG_JSON, "num_layers": "many"}))
    done = call(str(tmp_path / "model"))
    assert done.returncode == 2
    assert "num_layers" in done.stderr


def test_a_file_of_ones_own_is_counted_as_deepspeed_will_read_it(tmp_path: Path) -> None:
    """Buckets as 5e7, hpZ, and the type in which gradients are accumulated."""
    zero = {"stage": 3, "zero_hpz_partition_size": 4, "reduce_bucket_size": 5e7, "stage3_prefetch_bucket_size": 1e6}
    table = {"zero_optimization": zero, "data_types": {"grad_accum_dtype": "bf16"}}
    (tmp_path / "own.json").write_text(json.dumps(table))
    words = ["t5-base", "--gpus", "4", "--nodes", "2", "--interconnect", "ib-hdr", "--micro-tokens", "4096"]
    found = plan(*words, "--set", f"train.ds_config={tmp_path / 'own.json'}")
    rows = {row["ds_config"]: row for row in found["rows"] if not row["checkpoint_activations"]}
    own, shipped = rows[str(tmp_path / "own.json")], rows["zero3"]
    assert own["items"]["hpz_weights"] > 0.9 * 2 * found["parameters"] / 4
    assert own["items"]["gradients"] * 2 == shipped["items"]["gradients"]
    assert own["sent_bytes_between_nodes"] < own["sent_bytes_per_gpu"]
    assert shipped["sent_bytes_between_nodes"] == shipped["sent_bytes_per_gpu"]


def test_what_is_written_keeps_what_a_file_of_ones_own_says_beside_zero(tmp_path: Path) -> None:
    table = {
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1e9},
        "data_types": {"grad_accum_dtype": "bf16"},
        "communication_data_type": "fp32",
    }
    (tmp_path / "own.json").write_text(json.dumps(table))
    planned = from_config.planned("t5-small", [f"train.ds_config={tmp_path / 'own.json'}"], 2)
    cluster, room = from_config.cluster("h100", 2, 1, None), Room(80e9)
    found = choices(planned.work, planned.tables, [8192], cluster, room, Assumptions())
    mine = next(choice for choice in found if choice.ds_config == str(tmp_path / "own.json"))
    for _ in range(2):  # the second overwrites the first
        from_config.write(mine, planned, tmp_path / "written.json")
    written = json.loads((tmp_path / "written.json").read_text())
    assert written.pop("zero_optimization") == {
        "stage": 2,
        "reduce_bucket_size": 60_506_624,
    }
    assert written == {name: table[name] for name in ("data_types", "communication_data_type")}


def test_the_length_of_a_run_decides_its_hours_and_energy() -> None:
    rows, long = (plan("t5-small", "--steps", steps)["rows"][0] for steps in ("1000", "3000"))
    assert long["run_gpu_hours"] == pytest.approx(3 * rows["run_gpu_hours"])
    assert long["run_gpu_hours"] == pytest.approx(8 * long["run_hours"])
    assert long["run_kwh_upper_estimate"] == pytest.approx(0.7 * long["run_gpu_hours"])
    found = plan("t5-small", "--tokens", str(10**9))
    assert found["steps"] == 15_336
    output = call("t5-small", "--tokens", str(10**9)).stdout
    assert "the run: 15,336 steps, 1,000,0" in output
    assert "GPUs alone, an upper estimate" in output
    assert f"suggested: data.global_tokens={found['suggested']['global_tokens']}, " in output


def test_a_gpu_of_ones_own_needs_a_file_and_brings_its_links(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = 'name = "Mine"\nmemory_gb = 30\nmemory_gb_per_s = 900\nlink_gb_per_s = 30\n'
    text += "tflops_bf16 = 200\ntflops_fp32 = 20\n"
    path.write_text(text)
    found = plan("t5-base", "--gpu", str(path))
    assert (found["gpu"], found["gpu_bytes"]) == ("Mine", 30e9)
    assert found["rows"][0]["run_kwh_upper_estimate"] is None
    assert "energy: the GPU's power is unknown" in call("t5-base", "--gpu", str(path)).stdout
    assert "several nodes need an interconnect" in call("t5-base", "--gpu", str(path), "--nodes", "2").stderr
    path.write_text(text + "between_gb_per_s = 25\n")
    assert plan("t5-base", "--gpu", str(path), "--nodes", "2")["nodes"] == 2
    path.write_text(text.replace("memory_gb = 30\n", ""))
    assert "memory_gb" in call("t5-base", "--gpu", str(path)).stderr


def test_an_unknown_name_is_answered_with_presets_and_configurations() -> None:
    done = call("nosuch")
    assert done.returncode == 2
    assert {"t5-3b", "sweep-1m", "base", "xl"} <= set(re.split(r"[ ,\n]+", done.stderr))
    assert "did you mean 't5-large'?" in call("t5-larg").stderr
    assert "did you mean 'sweep-0.2m'?" in call("sweep-0.3m").stderr
    assert "nosuch.toml: no such file" in call("nosuch.toml").stderr
    assert "runs/nosuch.toml: no such file" in call("runs/nosuch.toml").stderr


def test_a_model_of_the_hub_is_planned_from_the_cache_or_the_command_that_fetches_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    done = call("google/flan-t5-base")
    assert done.returncode == 2
    assert "google/flan-t5-base: neither a file or folder nor a model in the hub's cache" in done.stderr
    assert "next: hf download google/flan-t5-base config.json" in done.stderr
    kept = tmp_path / "models--google--flan-t5-base"
    (kept / "snapshots" / "0123").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    table = presets.to_hf_config(presets.shape("t5-base", None), 0.1)
    (kept / "snapshots" / "0123" / "config.json").write_text(json.dumps(table))
    found = plan("google/flan-t5-base")
    assert (found["model"], found["parameters"]) == ("google/flan-t5-base", plan("t5-base")["parameters"])


@pytest.mark.slow
def test_calibrating_shows_predicted_beside_measured() -> None:
    words = ("sweep-0.2m", "--gpus", "2", "--micro-tokens", "1024", "--calibrate", "--set", "train.precision=fp32")
    rows = plan(*words)["rows"]
    assert {row["ds_config"] for row in rows} == {"zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"}
    for row in rows:
        if row["item"] == "tokens/s":
            assert row["measured"] > 0
        elif row["item"] != "peak of a step":  # on a CPU it is the whole process's
            assert row["predicted"] == row["measured"], row


@pytest.mark.slow
def test_a_calibration_that_is_ended_leaves_no_process(tmp_path: Path) -> None:
    words = ("sweep-0.2m", "--gpus", "2", "--calibrate", "--set", "train.precision=fp32")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-m", "bigchem", "plan", *words], env=environment)

    def processes() -> list[str]:
        lines = subprocess.run(
            ["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return [line for line in lines if "submitit" in line and str(tmp_path) in line]

    deadline = time.monotonic() + 60
    while len(processes()) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(processes()) == 3
    running.terminate()
    assert running.wait(timeout=30) == 143
    while processes() and time.monotonic() < deadline + 30:
        time.sleep(0.2)
    assert processes() == []


@pytest.mark.slow
def test_the_benchmark_measures_models_at_sizes_of_micro_batches() -> None:
    words = (
        "--model",
        "sweep-0.2m",
        "--micro-tokens",
        "1024",
        "--micro-tokens",
        "2048",
        "--set",
        "train.precision=fp32",
    )
    bench = [sys.executable, "-m", "bigchem", "bench", "plan", *words, "--json"]
    done = subprocess.run(bench, capture_output=True, text=True, check=True)
    rows = [row for row in json.loads(done.stdout) if row["item"] == "peak of a step"]
    assert [(row["model"], row["micro_tokens"]) for row in rows] == [("sweep-0.2m", 1024), ("sweep-0.2m", 2048)]
    assert all(row["predicted"] > 0 and row["measured"] > 0 for row in rows)


def test_the_commands_of_its_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "planning.md").read_text()
    found = re.findall(r"^bigchem plan .*$", page, re.MULTILINE)
    assert len(found) > 3
    for command in found:
        words = shlex.split(command, comments=True)[2:]
        if not {"--calibrate", "--tune"} & set(words):
            done = call(*words, cwd=tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
