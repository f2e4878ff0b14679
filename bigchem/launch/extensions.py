"""DeepSpeed's compiled CPU operation, built or loaded by one process at a time.

Torch guards its builds with a file that a killed process leaves behind, and then waits for it without end. Here the
kernel guards them: a file lock dies with its process, and while it is held torch's file can only be a leftover.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def load_shared_memory_op() -> None:
    """Builds or loads the operation that DeepSpeed's collectives use between processes of one machine."""
    import deepspeed
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    with (root / "bigchem.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in root.glob("**/deepspeed_shm_comm/lock"):
            leftover.unlink()
        builder = deepspeed.accelerator.get_accelerator().create_op_builder("ShareMemCommBuilder")
        if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
            builder.load(verbose=False)
