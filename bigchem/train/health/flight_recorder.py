"""torch's flight recorder: this rank's last collective operations, in memory, and dumped on a hang."""

import os
from pathlib import Path

from bigchem.base import atomic

SIZES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
FILES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
"""Current and older variable names; torch 2.11 to 2.13 read both."""
OPERATIONS = 2000
PREFIX = "flight_rank_"


def arm(run_dir: Path) -> None:
    """Enables recording, unless the user configured it; call it before the process group is initialized. NCCL's own
    watchdog dumps into run_dir/health too if an operation times out."""
    if not any(name in os.environ for name in SIZES):
        os.environ[SIZES[0]] = str(OPERATIONS)
    if not any(name in os.environ for name in FILES):
        os.environ[FILES[0]] = str(run_dir / "health" / PREFIX)  # torch appends the rank


def dump(folder: Path, rank: int) -> None:
    """Writes flight_rank_<N> for torchfrtrace and flight<N>.json to read. OSError if the disk does not take them."""
    from torch._C import _distributed_c10d as c10d

    kind = "nccl" if hasattr(c10d, "_dump_nccl_trace") else "fr"
    atomic.write_atomically(folder / f"{PREFIX}{rank}", getattr(c10d, f"_dump_{kind}_trace")())
    atomic.write_atomically(folder / f"flight{rank}.json", getattr(c10d, f"_dump_{kind}_trace_json")())
