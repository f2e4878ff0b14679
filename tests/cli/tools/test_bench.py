"""`bigchem bench`: every benchmark is found by its name, and the list needs no torch."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from bigchem.cli.main import app
from bigchem.cli.tools.bench import BENCHES


def test_the_list_names_every_benchmark_without_importing_one() -> None:
    code = (
        "import sys; from bigchem.cli.main import main; sys.argv = ['bigchem', 'bench', '--help']\n"
        "try: main()\n"
        "finally: print(*(m for m in sys.modules if m in ('torch', 'numpy') or m.startswith('bigchem.bench')),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert all(name in done.stdout for name in BENCHES)


def test_an_unknown_benchmark_is_a_mistake() -> None:
    assert CliRunner().invoke(app, ["bench", "nothing"]).exit_code == 2
