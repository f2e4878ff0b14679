from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import distributed
import pytest
from quickest import quickest
from runs import config_of
from test_help import PATHS

from bigchem.base import toml

BIGCHEM = Path(sys.executable).with_name("bigchem")
TOOLS = Path(__file__).parents[2] / "tools"


def bigchem(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIGCHEM, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_all_verbs_are_there() -> None:
    verbs = {" ".join(path) for path in PATHS}
    assert {"data build", "data preview", "train", "submit", "status", "evaluate", "score", "demo", "doctor"} <= verbs
    assert {"sweep submit", "sweep status", "sweep report"} <= verbs


HEAVY = ("torch", "numpy", "pandas", "pyarrow", "transformers", "deepspeed", "rdkit", "submitit")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bigchem.cli.main import main; sys.argv = ['bigchem', '--help']\n"
        "try: main()\n"
        f"finally: print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    output, seconds = quickest([sys.executable, "-c", code])
    assert "sweep" in output
    assert seconds < 2.0  # of processor time, which a busy machine does not lengthen; 0.3 on two idle cores
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.toml"], "none.toml: no such file"),
        (["train", "demo", "--set", "train.stpes=3"], "did you mean 'steps'?"),
        (["train", "demo", "--set", "data.path=nowhere"], "no data here"),
        (["submit", "demo", "--cluster", "loocal"], "did you mean 'local'?"),
        (["submit", "demo", "--set", "data.path=nowhere"], "no data here"),
        (["data", "build", "demo-dta", "out"], "did you mean 'demo-data'?"),
        (["data", "show", "nowhere"], "no data here"),
        (["data", "preview", "demo", "--set", "data.path=nowhere"], "no data here"),
        (["data", "verify", "nowhere"], "no data here"),
        (["data", "audit", "nowhere"], "no file 'nowhere'"),
        (["status", "nowhere"], "no such folder"),
        (["evaluate", "nowhere"], "no such folder"),
        (["score", "none.jsonl", "--task", "captioning"], "none.jsonl"),
        (["score", "none.jsonl", "--task", "captoining"], "did you mean 'captioning'?"),
        (["score", "--task", "captioning"], "takes one FILE, or --compare A B"),
        (["predict", "nowhere", "--task", "forward", "CCO"], "no such folder"),
        (["predict", "nowhere", "--task", "forward"], "no input"),
        (["sweep", "submit", "none"], "no file 'none'"),
        (["sweep", "report", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_told_in_three_lines_with_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = distributed.bigchem(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not any(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = bigchem("--debug", "status", "nowhere", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_export_tells_mistakes_the_same_way(tmp_path: Path) -> None:
    done = distributed.bigchem("export", "nowhere", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_doctor_finds_this_machine_and_a_run_fit_and_really_sums_over_processes(
    small_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(toml.dump(config_of(tmp_path, small_data, "fit")))
    done = bigchem("doctor", "--json", "--runs", str(tmp_path), "--config", str(config))
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert checks["all-reduce"]["verdict"] == "ok"
    assert "2 processes" in checks["all-reduce"]["found"]
    assert {name: checks[f"run: {name}"]["verdict"] for name in ("host memory", "time", "disk")} == {
        "host memory": "ok",
        "time": "ok",
        "disk": "ok",
    }
