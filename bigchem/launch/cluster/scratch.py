"""A node's own disk for what a job writes for itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bigchem.base.errors import UserError


def use_scratch(folder: str) -> None:
    """Makes a folder of this node the one for temporary files, for the cache of remote shards, and for what Triton and
    torch.compile compile: home folders on a network are slow for many small files, and all ranks write them at once."""
    path = Path(os.path.expandvars(folder))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make scratch: {error.strerror}", str(path), "mend it in the cluster profile") from None
    os.environ["TMPDIR"] = str(path)
    os.environ["BIGCHEM_CACHE"] = str(path / "shards")
    os.environ.setdefault("TRITON_CACHE_DIR", str(path / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(path / "inductor"))
    tempfile.tempdir = None  # it is remembered from the first use on
