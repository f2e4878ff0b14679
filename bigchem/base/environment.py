"""The Python environment that this process runs in."""

from __future__ import annotations

import os
import sys
import sysconfig


def own_programs_first() -> None:
    """Puts the programs of this environment (ninja, torchrun) first on PATH, as activating it would.

    So `.venv/bin/bigchem` works from any shell, in jobs and under torchrun. A Python outside of virtual environments
    whose folder is on PATH already changes nothing: a compiler that a person has put before it stays before it.
    """
    own = sysconfig.get_path("scripts")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if own in folders and sys.prefix == sys.base_prefix:
        return
    os.environ["PATH"] = os.pathsep.join([own, *(folder for folder in folders if folder != own)])
