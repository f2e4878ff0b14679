"""Validation by DeepSpeed's own configuration classes before a run is queued.

In a separate process: importing DeepSpeed takes seconds and fixes the device.
"""

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
    """UserError if DeepSpeed's classes refuse a file that is not shipped. Returns a line if DeepSpeed cannot run on
    this machine, else None."""
    if completed.is_shipped:
        return None
    table = {**completed.table, "gradient_accumulation_steps": 1}  # one cache entry for all world sizes
    refusal, failure = _validate(json.dumps(table, sort_keys=True))
    if refusal:
        raise UserError(f"DeepSpeed refuses it: {refusal[:300]}", str(completed.path))
    return f"DeepSpeed's own classes could not check it here: {failure}" if failure else None


@lru_cache
def _validate(table: str) -> tuple[str, str]:
    """(why DeepSpeed refuses a table, why it could not run); empty: no reason."""
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
        return "", last[0][:200] if last else f"exit code {done.returncode}"
    return json.loads(done.stdout), ""
