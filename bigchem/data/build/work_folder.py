"""The folder in which a build grows, beside the one that it will be.

    .NAME.partial/lock       held while a build runs: one at a time, or the tasks of one build
    .NAME.partial/recipe     which recipe, and which versions of the programs that decide rows, the rest belongs to
    .NAME.partial/parsed/    what a build that was killed goes on from
    .NAME.partial/chosen/
    .NAME.partial/made/
    .NAME.partial/data/      what is renamed to NAME, with its index as the last file
    .NAME.jobs/              logs of a build on a cluster

A kill between any two steps loses at most the work of a chunk: what is there is whole and belongs to the stated recipe,
or is done again.
"""

from __future__ import annotations

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
"""What a published folder holds: files, and folders of files with these suffixes."""


@contextmanager
def work_folder(out: Path, recipe: str, progress: Progress) -> Iterator[Path]:
    """The folder of a build of `out`, with what an interrupted one of the same recipe left; UserError if one runs."""
    work = _aside(out, "partial")
    with _locked(work) as held:
        if not held:
            raise UserError("another build is writing it", str(out), "wait for that one, or end it")
        state, stated = work / "recipe", _stated(recipe)
        if not state.is_file() or state.read_text(encoding="utf-8") != stated:
            state.unlink(missing_ok=True)  # first: from here on the rest belongs to nobody
            for name in ("data", "made", "chosen", "parsed"):
                shutil.rmtree(work / name, ignore_errors=True)
            atomic.write_atomically(state, stated)
        elif any((work / "parsed").glob("*")):
            progress.say(f"going on with an interrupted build of {out}")
        for leftover in work.rglob(".*.partial"):  # of a build that was killed while it wrote
            leftover.unlink()
        yield work


@contextmanager
def joined(out: Path, recipe: str) -> Iterator[Path | None]:
    """The folder that `work_folder` has made ready, for one of many tasks that fill it; None if it is published.

    UserError if a build by itself is at it, or if this machine's programs, or the recipe, are not those it is for.
    """
    work = _aside(out, "partial")
    try:
        handle = (work / "lock").open("a+b")
    except FileNotFoundError:
        yield None
        return
    with handle:
        if not lock_if_possible(handle, wait=False, shared=True):
            raise UserError("another build is writing it", str(out), "wait for that one, or end it")
        if not is_at(handle, work / "lock"):
            yield None
            return
        if (work / "recipe").read_text(encoding="utf-8") != _stated(recipe):
            raise UserError(
                "its build was begun with another recipe, code or library than are here",
                str(out),
                "give the command again from one environment that all nodes share",
            )
        yield work


def jobs_folder(out: Path) -> Path:
    """Where the tasks of a build on a cluster have their logs."""
    return _aside(out, "jobs")


def publish(work: Path, out: Path) -> None:
    """Gives the data its name, in the place of what had it."""
    old = _aside(out, "old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    (work / "data").replace(out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Removes what a publication left that was killed behind its last rename; not what a running build has."""
    work = _aside(out, "partial")
    if work.is_dir():
        with _locked(work) as held:
            if held:
                shutil.rmtree(_aside(out, "old"), ignore_errors=True)
                shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(jobs_folder(out), ignore_errors=True)


def refuse_foreign_folder(out: Path) -> None:
    """UserError if `out` is anything but a folder that a build has published, or an empty one."""
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
        raise UserError(f"holds '{foreign[0]}', which is not ours", str(out), "choose another folder")
    # A damaged index is still ours where everything around it is.
    if not (
        _is_index(out / "index.json") or all((out / name).exists() for name in ("index.json", "lengths", "tokenizer"))
    ):
        raise UserError("is not empty and holds no data of ours", str(out), "choose another folder")


def _is_ours(path: Path) -> bool:
    """Whether a published folder has such a path, relative to it."""
    suffixes = OURS.get(path.parts[0])
    return suffixes is not None and (len(path.parts) == 1 or (len(path.parts) == 2 and path.suffix in suffixes))


def _is_index(file: Path) -> bool:
    """Whether it is an index of this or of an earlier format."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and {"format", "fingerprint", "shards"} <= table.keys()


def _stated(recipe: str) -> str:
    """What the file `recipe` says."""
    return f"{recipe} {_programs()}\n"


def _programs() -> str:
    """What, besides the recipe, decides the bytes of a build: the code here, and the libraries under it."""
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
    """Makes the folder if need be and holds its lock; False if another process does."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            handle = (work / "lock").open("ab")
        except FileNotFoundError:  # a build was published, and its work folder removed, between the two calls
            continue
        with handle:
            held = lock_if_possible(handle, wait=False)
            if held and not is_at(handle, work / "lock"):  # the same, between opening and locking
                continue
            yield held
            return


def _aside(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")
