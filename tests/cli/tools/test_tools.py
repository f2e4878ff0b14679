"""tools/: thin wrappers of the verbs, for a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted((Path(__file__).parents[3] / "tools").glob("*.py"))
VERBS = {
    "bench.py": ["bench"],
    "consolidate.py": ["export"],
    "scale_sweep.py": ["sweep", "report"],
    "zero_plan.py": ["plan"],
}


def usage(*words: str | Path) -> tuple[int, str]:
    """Exit code of `--help`, and what it prints below the line that names the program."""
    done = subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split("\n", 2)[-1]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.name)
def test_a_tool_is_the_verb_of_the_package(tool: Path) -> None:
    code, text = usage(tool)
    assert code == 0
    if tool.name != "gpu_check.py":  # it has a parser of its own, for machines without typer's dependencies
        assert (code, text) == usage("-m", "bigchem", *VERBS[tool.name])
    assert len(tool.read_text().splitlines()) < 20
