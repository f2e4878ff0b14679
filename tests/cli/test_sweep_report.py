from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = """parameters,task,regime,metric,value,low,high,seed,run
200000,generation,together,levenshtein,28.0,27.9,28.1,0,s-all
200000,generation,alone,levenshtein,29.0,28.9,29.1,0,s-one
1000000,generation,together,levenshtein,24.0,23.9,24.1,0,m-all
1000000,generation,alone,levenshtein,26.0,25.9,26.1,0,m-one
5000000,generation,together,levenshtein,20.0,19.9,20.1,0,l-all
5000000,generation,alone,levenshtein,23.0,22.9,23.1,0,l-one
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bigchem", "sweep", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    file = tmp_path / "scores.csv"
    file.write_text(TABLE)
    return file


def test_it_writes_the_report_and_prints_headline_and_place(scores: Path, tmp_path: Path) -> None:
    done = run(scores, "--out", tmp_path / "out", "--title", "Foreign models")
    assert done.returncode == 0, done.stderr
    assert "generation levenshtein" in done.stdout
    assert "For cross-domain tasks (generation), " in done.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "Foreign models" in (tmp_path / "out" / "report.html").read_text()


def test_json_has_the_sign_corrected_gains(scores: Path, tmp_path: Path) -> None:
    done = run(scores, "--out", tmp_path / "out", "--json")
    report = json.loads(done.stdout)
    assert [row["gain"] for row in report["gain"]] == [1.0, 2.0, 3.0]
    assert report["gain"][0]["slope"] == pytest.approx(2 / 1.398, rel=1e-3)
    assert Path(report["report"]).is_file()
    assert report["headline"] == {"generation": "levenshtein"}


def test_a_users_mistake_is_two_lines_and_exit_code_2(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bigchem.cli.main import main; sys.argv = ['bigchem', 'sweep', 'report', '--help']\n"
        "try: main()\n"
        "finally: print(*({'numpy', 'torch', 'matplotlib', 'scipy'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--extrapolate" in done.stdout
    assert done.stderr.split() == []


def test_a_curve_read_more_than_a_decade_beyond_needs_its_flag(scores: Path, tmp_path: Path) -> None:
    done = run(scores, "--out", tmp_path / "out", "--extrapolate", "1e9")
    assert done.returncode == 2
    assert "1B is more than a decade beyond the measured sizes of" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run(scores, "--out", tmp_path / "out", "--extrapolate", "1e9", "--beyond-a-decade")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "beyond.csv").read_text().splitlines()) == 1 + 2
