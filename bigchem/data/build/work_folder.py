"""The folder in which a build works, next to its output folder NAME.

    .NAME.partial/lock       held while a build, or the tasks of one build, run
    .NAME.partial/recipe     the recipe and the code and library versions that the rest belongs to
    .NAME.partial/parsed/    this and the next two: where a killed build resumes
    .NAME.partial/chosen/
    .NAME.partial/made/
    .NAME.partial/data/      renamed to NAME at the end; its index is the last file written
    .NAME.jobs/              logs of a build on a cluster

A kill at any time loses at most a chunk's work: whatever exists is complete and belongs to the stated recipe, or is
redone.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.file_lock import is_at, lock_if_possible
from bigchem.base.progress import Progress
from bigchem.data.storage.index import FORMAT, SPLITS

OURS: dict[str, tuple[str, ...]] = {
    "index.json": (),
    "rejected.jsonl": (),
    "tokenizer": (".json",),
    "lengths": (".npy",),
    **dict.fromkeys(SPLITS, (".arrow", ".npy")),  # .npy in older formats
}
"""The content of a published folder: files, and folders of files with these suffixes."""


@contextmanager
def work_folder(out: Path, recipe: str, progress: Progress) -> Iterator[Path]:
    """The work folder of a build of `out`, with the results of an interrupted build of the same recipe. UserError if a
    build is running."""
    work = _aside(out, "partial")
    with _locked(work) as locked:
        if not locked:
            raise UserError("another build is writing it", str(out), "wait for it, or stop it")
        state, stated = work / "recipe", _stated(recipe)
        if not state.is_file() or state.read_text(encoding="utf-8") != stated:
            state.unlink(missing_ok=True)  # first: from now on the rest belongs to no recipe
            for name in ("data", "made", "chosen", "parsed"):
                shutil.rmtree(work / name, ignore_errors=True)
            atomic.write_atomically(state, stated)
        elif any((work / "parsed").glob("*")):
            progress.say(f"resuming an interrupted build of {out}")
        for leftover in work.rglob(".*.partial"):  # of a build that was killed while writing
            leftover.unlink()
        yield work


@contextmanager
def joined(out: Path, recipe: str) -> Iterator[Path | None]:
    """The folder that `work_folder` prepared, for one of several tasks that share it; None if it is published.

    UserError if an unshared build uses it, or if it belongs to another recipe, code or library version.
    """
    work = _aside(out, "partial")
    try:
        handle = (work / "lock").open("a+b")
    except FileNotFoundError:
        yield None
        return
    with handle:
        if not lock_if_possible(handle, wait=False, shared=True):
            raise UserError("another build is writing it", str(out), "wait for it, or stop it")
        if not is_at(handle, work / "lock"):
            yield None
            return
        if (work / "recipe").read_text(encoding="utf-8") != _stated(recipe):
            raise UserError(
                "its build was started with another recipe, code or library version",
                str(out),
                "repeat the command from one environment that all nodes share",
            )
        yield work


def jobs_folder(out: Path) -> Path:
    """The folder for the logs of a build on a cluster."""
    return _aside(out, "jobs")


def publish(work: Path, out: Path) -> None:
    """Renames the data into place, replacing what was there."""
    old = _aside(out, "old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    (work / "data").replace(out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Removes the leftovers of a publication that was killed after its last rename; spares a running build's files."""
    work = _aside(out, "partial")
    if work.is_dir():
        with _locked(work) as locked:
            if locked:
                shutil.rmtree(_aside(out, "old"), ignore_errors=True)
                shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(jobs_folder(out), ignore_errors=True)


def refuse_foreign_folder(out: Path) -> None:
    """UserError unless `out` is a published folder, empty, or does not exist."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError("is a file", str(out), "choose a folder")
    if os.path.ismount(out):
        raise UserError("is a mount point, which cannot be renamed", str(out), f"choose a folder inside it: {out}/data")
    if not any(out.iterdir()):
        return
    foreign = [path.relative_to(out) for path in sorted(out.rglob("*")) if not _is_ours(path.relative_to(out))]
    if foreign:
        raise UserError(f"contains '{foreign[0]}', which no build wrote", str(out), "choose another folder")
    # A damaged index counts if everything around it is from a build.
    if not (
        _is_index(out / "index.json") or all((out / name).exists() for name in ("index.json", "lengths", "tokenizer"))
    ):
        raise UserError("is not empty and contains no built data", str(out), "choose another folder")


def _is_ours(path: Path) -> bool:
    """Whether a published folder may contain this relative path."""
    suffixes = OURS.get(path.parts[0])
    return suffixes is not None and (len(path.parts) == 1 or (len(path.parts) == 2 and path.suffix in suffixes))


def _is_index(file: Path) -> bool:
    """Whether it is an index, of this or an earlier format."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and {"format", "fingerprint", "shards"} <= table.keys()


def _stated(recipe: str) -> str:
    """The content of the file `recipe`."""
    return f"{recipe} {_programs()}\n"


def _programs() -> str:
    """What else determines a build's bytes: the code here, and the versions of its libraries."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for file in [
        *sorted((package / "data").rglob("*.py")),
        *sorted((package / "chemistry").rglob("*.py")),
        package / "tasks.py",
    ]:
        digest.update(file.read_bytes())
    versions = " ".join(f"{name} {version(name)}" for name in ("rdkit", "tokenizers", "pyarrow"))
    return f"format {FORMAT} code {digest.hexdigest()[:16]} {versions}"


@contextmanager
def _locked(work: Path) -> Iterator[bool]:
    """Creates the folder if needed and takes its lock; False if another process has it."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            handle = (work / "lock").open("ab")
        except FileNotFoundError:  # a build was published, and its work folder removed, between the two calls
            continue
        with handle:
            locked = lock_if_possible(handle, wait=False)
            if locked and not is_at(handle, work / "lock"):  # the same, between opening and locking
                continue
            yield locked
            return


def _aside(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")
