"""A copy of bigchem's source in the run folder, which the run's jobs execute: edits after submission change nothing.

Snapshots are named by what they hold and stay: a queued or requeued job keeps its own, and each shows what an attempt
ran. One takes about a megabyte.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import bigchem
from bigchem import shipped, strict


def snapshot(folder: Path) -> Path:
    """Copies the package, unless the same is there already; the folder to put on Python's path.

    folder: that holds snapshots, RUN/code. Works from a checkout and from an installed wheel.
    """
    files = _files()
    path = folder / name_of(files)
    if not path.is_dir():
        with strict.replace_folder(path) as partial:
            for relative, content in files.items():
                (partial / relative).parent.mkdir(parents=True, exist_ok=True)
                (partial / relative).write_bytes(content)
    return path


def planned(folder: Path) -> Path:
    """Where `snapshot` would put its copy; writes nothing."""
    return folder / name_of(_files())


def name_of(files: dict[str, bytes]) -> str:
    """Twelve hexadecimal digits that follow from names and contents."""
    digest = hashlib.sha256()
    for relative, content in sorted(files.items()):
        digest.update(f"{relative}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def _files() -> dict[str, bytes]:
    """Path in the snapshot -> content. What ships beside the package in a checkout goes where a wheel has it."""
    package = Path(bigchem.__file__).parent
    roots = {Path("bigchem"): package}
    if not (package / "_shipped").is_dir():
        roots |= {Path("bigchem/_shipped") / kind: shipped.folder(kind) for kind in ("ds_configs", "clusters")}
    return {
        str(name / file.relative_to(root)): file.read_bytes()
        for name, root in roots.items()
        for file in sorted(root.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
