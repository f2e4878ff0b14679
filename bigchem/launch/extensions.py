"""DeepSpeed's compiled CPU operations, built or loaded by one process at a time.

Torch guards its builds with a file that a killed process leaves behind, and then waits for it without end. Here the
kernel guards them: a file lock dies with its process, and while it is held torch's file can only be a leftover.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from pathlib import Path

from bigchem.errors import UserError


def leave_out_shared_memory_op() -> None:
    """Keeps DeepSpeed from compiling its all-reduce over shared memory when a process group starts on a CPU.

    Only `inference_all_reduce` uses it, which tensor-parallel layers call. Training's collectives are gloo's.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def load_cpu_adam() -> None:
    """Builds or loads DeepSpeed's optimizer for states offloaded to the CPU; UserError if it cannot be built."""
    try:
        built = _load("CPUAdamBuilder", "CPU Adam")
    except Exception as error:  # torch's builds raise several kinds
        raise _no_adam(str(error).splitlines()[0]) from error
    if not built:
        raise _no_adam("DeepSpeed finds it incompatible with this machine")


def _no_adam(reason: str) -> UserError:
    return UserError(f"DeepSpeed's CPU Adam cannot be compiled: {reason}", None, "install g++, or do not offload")


def _load(builder_name: str, words: str) -> bool:
    """Whether DeepSpeed has the operation for this machine; then it is loaded."""
    import deepspeed

    root = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(_folder())))
    root.mkdir(parents=True, exist_ok=True)
    with (root / "bigchem.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder = deepspeed.accelerator.get_accelerator().create_op_builder(builder_name)
        if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
            return False
        for leftover in root.glob(f"**/{builder.NAME}/lock"):
            leftover.unlink()
        if not any(root.glob(f"**/{builder.NAME}/*.so")):
            print(f"compiling DeepSpeed's {words}: about a minute, once per environment", flush=True)
        builder.load(verbose=False)
    return True


def _folder() -> Path:
    """One folder per environment: two that share one compile each other's builds anew, as their paths differ."""
    key = hashlib.sha256(f"{sys.prefix} {sys.version}".encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "bigchem" / "torch_extensions" / key
