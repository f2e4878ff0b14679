"""A PATH of system folders as on a machine that has a compiler but no ninja."""

from __future__ import annotations

from pathlib import Path

SYSTEM = (Path("/usr/local/bin"), Path("/usr/bin"), Path("/bin"))


def without_ninja(folder: Path) -> Path:
    """A folder of links to all programs of the system but ninja."""
    folder.mkdir()
    for program in (program for system in SYSTEM if system.is_dir() for program in system.iterdir()):
        link = folder / program.name
        if not program.name.startswith("ninja") and not link.is_symlink():
            link.symlink_to(program)
    return folder
