"""The check with stages that end well, hang and crash; its parts as dry runs; killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from bigchem.base.errors import UserError
from bigchem.bench.gpu_check import check, plain, render, runner
from bigchem.bench.gpu_check.schedule import MINUTES, PARTS, limits
from bigchem.cli import program

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
TOOL = [sys.executable, str(ROOT / "tools" / "gpu_check.py")]
ABSENT = ("pydantic", "pydantic_core", "tomli_w", "submitit", "deepspeed", "rdkit", "datasets", "nltk", "rouge_score")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are those of fake_stage.py, which need no torch."""
    monkeypatch.setattr(check, "CHILD", "fake_stage")
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.mark.usefixtures("fake")
def test_a_stage_that_hangs_or_crashes_ends_alone_and_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "limits", lambda *_: 2.0)
    found = check.check(1, PARTS[1], 8.0, tmp_path / "out.json", dry_run=True)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert {name: stage["status"] for name, stage in stages.items()} == {
        "versions": "done",
        "kernels": "killed",
        "profile": "failed",
        "steps": "failed",
        "attention": "killed",
        "tiles": "done",
    }
    assert all(stage["report"]["rows"] == [{"stage": name}] for name, stage in stages.items())
    assert stages["kernels"]["reason"] == "not done in its 2 s"
    assert stages["profile"]["reason"].startswith("signal SIGABRT")
    assert stages["steps"]["reason"] == "exit code 1: error: no CUDA device here"
    printed = capsys.readouterr().out
    assert "versions: versions has 0 s" in printed
    child = int(printed.split("kernels: child ")[1].split()[0])
    with pytest.raises(ProcessLookupError):  # what a killed stage has started is killed too
        os.kill(child, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_check_leaves_what_it_found(number: signal.Signals, tmp_path: Path) -> None:
    code = "from bigchem.bench.gpu_check import check; from bigchem.cli import program\n"
    code += "check.CHILD = 'fake_stage'; program.run(program.app_of(check.main))"
    out = tmp_path / "out.json"
    process = subprocess.Popen([sys.executable, "-c", code, "--dry-run", "--out", str(out)], cwd=ROOT)
    _until(lambda: _statuses(out).get("kernels") == "running")
    process.send_signal(number)
    process.wait(20)
    found = json.loads(out.read_text())
    assert [stage["status"] for stage in found["stages"]] == ["done", "running" if number == 9 else "killed"]
    assert found["stages"][0]["report"]["rows"] == [{"stage": "versions"}]


def test_descendants_are_found_at_any_depth_and_in_other_groups() -> None:
    code = "import subprocess; subprocess.run(['sleep', '60'], process_group=0)"
    child = subprocess.Popen([sys.executable, "-c", code])
    _until(lambda: len(runner.descendants(child.pid)) == 1)
    (grandchild,) = runner.descendants(child.pid)
    assert {child.pid, grandchild} <= set(runner.descendants(os.getpid()))
    runner.end_descendants(child.pid)
    child.wait(20)
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)


def test_what_a_stage_leaves_of_its_time_goes_to_the_next() -> None:
    assert limits(PARTS[1], 1.0, 0.0, 0) == 30
    assert limits(PARTS[1], 1.0, 10.0, 1) == 110
    assert limits(PARTS[1], 0.5, 10.0, 1) == 50
    for part, stages in PARTS.items():
        ends = [0.0, *(stage.ends for stage in stages)]
        assert ends == sorted(set(ends))
        assert ends[-1] < MINUTES[part]


@pytest.mark.parametrize("arguments", [[], ["--part", "2", "--minutes", "0.5", "--only", "zero", "--only", "offload"]])
def test_the_tool_reads_options_as_the_command_does(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """tools/gpu_check.py parses without typer, which may need pydantic."""
    found: list[object] = []
    monkeypatch.setattr(check, "check", lambda *given, **named: found.append((given, named)) or {"stages": []})
    plain.run(check.main, arguments)
    typer.main.get_command(program.app_of(check.main)).main(arguments, standalone_mode=False)
    assert len(found) == 2
    assert found[0] == found[1]


@pytest.mark.parametrize(("arguments", "code"), [(["--only", "nothing"], 2), (["--part", "x"], 2)])
def test_the_tool_refuses_what_the_command_refuses(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as stopped:
        plain.run(check.main, arguments)
    assert stopped.value.code == code


def test_the_section_of_a_page_is_made_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = {"part": 1, "minutes": 8.0, "dry_run": False, "date": "2026-11-30", "stages": []}
    (tmp_path / "part1.json").write_text(json.dumps(part))
    (tmp_path / "page.md").write_text("# Page\n\n<!-- gpu-check: begin --><!-- gpu-check: end -->\n")
    plain.run(check.main, ["--render", str(tmp_path / "part1.json")])
    line = "2026-11-30, `bigchem bench gpu-check --part 1`, 8 minutes:"
    assert capsys.readouterr().out.strip() == line
    plain.run(check.main, ["--render", str(tmp_path / "part1.json"), "--into", str(tmp_path / "page.md")])
    assert line in (tmp_path / "page.md").read_text().splitlines()


def test_the_docs_have_a_place_for_the_section() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.index(render.BEGIN) < page.index(render.END)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UserError, match="not a file of this check: it has no stages"):
        check._load(tmp_path / "other.json")


@pytest.mark.heavy
def test_a_stages_process_ends_with_the_check(tmp_path: Path) -> None:
    """Killed while a stage computes in Triton's interpreter: the stage's process notices."""
    out = tmp_path / "out.json"
    process = subprocess.Popen([*TOOL, "--dry-run", "--only", "versions", "--only", "tiles", "--out", str(out)])
    _until(lambda: _statuses(out).get("tiles") == "running" and bool(_stages(out)), 120)
    process.kill()
    process.wait(20)
    _until(lambda: not _stages(out), 60)
    assert _statuses(out) == {"versions": "done", "tiles": "running"}


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_part_1_runs_with_torch_triton_and_transformers_alone(tmp_path: Path) -> None:
    """All of it, on the CPU with tiny sizes, with everything else that bigchem depends on hidden from import."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.machinery import PathFinder\n"
        "class Some(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name.split('.')[0] in {ABSENT} else super().find_spec(name, path, target)\n"
        "sys.meta_path = [Some if finder is PathFinder else finder for finder in sys.meta_path]\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    hidden = [sys.executable, "-c", "import pydantic"]
    assert subprocess.run(hidden, env=variables, capture_output=True, check=False).returncode
    out = tmp_path / "out.json"
    done = subprocess.run([*TOOL, "--dry-run", "--minutes", "12", "--out", str(out)], env=variables, check=False)
    found = {stage["name"]: stage for stage in json.loads(out.read_text())["stages"]}
    assert {name: (stage["status"], stage["reason"]) for name, stage in found.items()} == dict.fromkeys(
        (stage.name for stage in PARTS[1]), ("done", "")
    )
    assert done.returncode == 0
    assert all(stage["report"]["rows"] or stage["report"]["figures"] for stage in found.values())
    errors = [figure for figure in found["kernels"]["report"]["figures"] if "largest error" in figure["name"]]
    assert len(errors) >= 9
    assert all(figure["holds"] for figure in errors)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_part_2_measures_saves_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run([*TOOL, "--part", "2", "--dry-run", "--minutes", "12", "--out", str(out)], check=True)
    stages = {stage["name"]: stage["report"] for stage in json.loads(out.read_text())["stages"]}
    assert not any(report["skipped"] for report in stages.values()), stages
    assert {row["ds_config"] for row in stages["zero"]["rows"]} == {"zero1", "zero2", "zero3"}
    assert {row["ds_config"] for row in stages["offload"]["rows"]} == {"zero2_offload"}
    assert any("resumed" in figure["name"] for figure in stages["checkpoint"]["figures"])


def _statuses(out: Path) -> dict[str, str]:
    """Of the stages so far."""
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"stages": []}
    return {stage["name"]: stage["status"] for stage in found["stages"]}


def _stages(out: Path) -> list[str]:
    """Processes of stages that write beside this file."""
    lines = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if check.CHILD in line and str(out.parent) in line]


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
