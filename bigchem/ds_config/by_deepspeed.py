"""DeepSpeed's own configuration classes, asked before a run is queued.

In a process of their own: importing DeepSpeed takes seconds, and chooses a device for good.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache

from bigchem.base.errors import UserError
from bigchem.ds_config.completing import Completed

TIMEOUT_S = 120.0

_PROGRAM = """
import json, sys
table, out = json.load(sys.stdin), sys.stdout
sys.stdout = sys.stderr
from deepspeed.runtime.config import DeepSpeedConfig
try:
    DeepSpeedConfig(table)
    why = ""
except Exception as error:
    why = " ".join(str(error).split()) or type(error).__name__
json.dump(why, out)
"""


def check_with_deepspeed(completed: Completed) -> str | None:
    """UserError for what DeepSpeed's classes do not take, of a file that is not shipped. A line where DeepSpeed cannot
    be asked on this machine, so that nothing is known; else None."""
    if completed.is_shipped:
        return None
    alike = {**completed.table, "gradient_accumulation_steps": 1}  # of all numbers of processes
    why, unknown = _asked(json.dumps(alike, sort_keys=True))
    if why:
        raise UserError(f"DeepSpeed refuses it: {why[:300]}", str(completed.path))
    return f"DeepSpeed's own classes could not be asked here: {unknown}" if unknown else None


@lru_cache
def _asked(table: str) -> tuple[str, str]:
    """(why DeepSpeed refuses a table, why it cannot be asked), where there is a reason."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=table,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)[:200]
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return "", last[0][:200] if last else f"it ended with {done.returncode}"
    return json.loads(done.stdout), ""
