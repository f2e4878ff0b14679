"""A copy of bigchem's source in the run folder, which the run's jobs execute: edits after submission change nothing.

Snapshots are named by a hash of their content and never removed: a queued or requeued job keeps its own, and each shows
what an attempt ran. One takes about a megabyte.
"""

import hashlib
import re
from pathlib import Path

import bigchem
from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.installed import resources

_NAME = re.compile("[0-9a-f]{12}")


def snapshot(folder: Path) -> Path:
    """Copies the package, unless the same copy exists; returns the folder to put on Python's path. An existing copy
    that does not match its name is set aside and not run.

    folder: of the snapshots, RUN/code. Works from a checkout and from an installed wheel.
    """
    files = _files()
    path = folder / name_of(files)
    if path.is_dir() and not is_intact(path):
        aside = path.rename(_free(path.with_name(f"{path.name}.altered")))
        print(f"{path} was altered since it was made: set aside as {aside.name}, and copied again", flush=True)
    if not path.is_dir():
        with atomic.replace_folder(path) as partial:
            for relative, content in files.items():
                (partial / relative).parent.mkdir(parents=True, exist_ok=True)
                (partial / relative).write_bytes(content)
    return path


def is_intact(path: Path) -> bool:
    """Whether a snapshot's content matches its name."""
    try:
        return name_of(_files_in({Path("bigchem"): path / "bigchem"})) == path.name
    except OSError:
        return False


def check_own() -> None:
    """UserError if this process runs from a snapshot that was altered since it was made, and so is not what was
    submitted. Python has read some of it by then: this guards against accidents, see docs/security.md."""
    path = Path(bigchem.__file__).parent.parent
    if path.parent.name == "code" and _NAME.fullmatch(path.name) and not is_intact(path):
        hint = "`bigchem resume RUN` takes a new one; the altered one stays beside it"
        raise UserError("the snapshot of the code was altered since it was made", str(path), hint)


def _free(path: Path) -> Path:
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.partition('-')[0]}-{number}")
    return path


def planned(folder: Path) -> Path:
    """Where `snapshot` would put its copy; writes nothing."""
    return folder / name_of(_files())


def name_of(files: dict[str, bytes]) -> str:
    """Twelve hexadecimal digits of a hash of names and contents."""
    digest = hashlib.sha256()
    for relative, content in sorted(files.items()):
        digest.update(f"{relative}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def _files() -> dict[str, bytes]:
    """Path in the snapshot -> content. Files beside the package in a checkout go where a wheel has them."""
    package = Path(bigchem.__file__).parent
    roots = {Path("bigchem"): package}
    if not (package / "_shipped").is_dir():
        roots |= {Path("bigchem/_shipped") / kind: resources.folder(kind) for kind in ("ds_configs", "clusters")}
    return _files_in(roots)


def _files_in(roots: dict[Path, Path]) -> dict[str, bytes]:
    """Files in folders, by their folder's name in the snapshot; without Python's caches and hidden files."""
    return {
        str(name / file.relative_to(root)): file.read_bytes()
        for name, root in roots.items()
        for file in sorted(root.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
