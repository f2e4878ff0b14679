"""Scratch: a node's own disk for a job's temporary files and caches."""

import os
import tempfile
from pathlib import Path

from bigchem.base.errors import UserError


def use_scratch(folder: str) -> None:
    """Puts temporary files, the cache of remote shards, and the Triton and torch.compile caches into a folder of this
    node: network home folders are slow for many small files, and all ranks write them at once."""
    path = Path(os.path.expandvars(folder))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create scratch: {error.strerror}", str(path), "fix the cluster profile") from None
    os.environ["TMPDIR"] = str(path)
    os.environ["BIGCHEM_CACHE"] = str(path / "shards")
    os.environ.setdefault("TRITON_CACHE_DIR", str(path / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(path / "inductor"))
    tempfile.tempdir = None  # Python caches it at first use
