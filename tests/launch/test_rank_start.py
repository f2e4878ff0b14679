"""What a rank imports before its first step: every module costs each rank time at every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runs import config_of

from bigchem.base import toml

UNNEEDED = {
    *("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy"),
    *("transformers", "datasets", "pandas", "scipy", "sklearn", "matplotlib", "setuptools", "submitit", "nltk"),
}
"""Packages that were or could be imported by accident: half of the modules were torch._dynamo's."""

RUN = """
import json, sys
from bigchem.cli.main import app
from bigchem.cli.program import run
sys.argv = ["bigchem", "train", sys.argv[1]]
try:
    run(app)
except SystemExit as stop:
    print(json.dumps([stop.code, *sys.modules]))
"""


def test_a_rank_without_compilation_imports_only_what_it_uses(small_data: Path, tmp_path: Path) -> None:
    """At ZeRO-2; DeepSpeed's ZeRO-3 imports torch._dynamo itself."""
    config = config_of(tmp_path / "runs", small_data, "lean", train={"steps": 3})
    (tmp_path / "run.toml").write_text(toml.dump(config))
    command = [sys.executable, "-c", RUN, str(tmp_path / "run.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    code, *modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr[-3000:]
    assert UNNEEDED & set(modules) == set()
