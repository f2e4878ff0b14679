"""DeepSpeed's compiled CPU operation, built or loaded by one process at a time.

Torch guards its builds with a file that a killed process leaves behind, and then waits for it without end. Here the
kernel guards them: a file lock dies with its process, and while it is held torch's file can only be a leftover.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from pathlib import Path


def load_shared_memory_op() -> None:
    """Builds or loads the operation that DeepSpeed's collectives use between processes of one machine."""
    import deepspeed

    root = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(_folder())))
    root.mkdir(parents=True, exist_ok=True)
    with (root / "bigchem.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in root.glob("**/deepspeed_shm_comm/lock"):
            leftover.unlink()
        builder = deepspeed.accelerator.get_accelerator().create_op_builder("ShareMemCommBuilder")
        if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
            if not any(root.glob("**/deepspeed_shm_comm.so")):
                print("compiling DeepSpeed's CPU operation: about a minute, once per environment", flush=True)
            builder.load(verbose=False)


def _folder() -> Path:
    """One folder per environment: two that share one compile each other's builds anew, as their paths differ."""
    key = hashlib.sha256(f"{sys.prefix} {sys.version}".encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "bigchem" / "torch_extensions" / key
