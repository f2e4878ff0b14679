"""This process's Python environment."""

import os
import sys
import sysconfig


def own_programs_first() -> None:
    """Puts this environment's programs (ninja, torchrun) first on PATH, as activation would.

    So `.venv/bin/bigchem` works from any shell, in jobs and under torchrun. Outside of virtual environments PATH is
    unchanged if it has Python's folder already: a compiler that the user has put first stays first.
    """
    own = sysconfig.get_path("scripts")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if own in folders and sys.prefix == sys.base_prefix:
        return
    os.environ["PATH"] = os.pathsep.join([own, *(folder for folder in folders if folder != own)])
