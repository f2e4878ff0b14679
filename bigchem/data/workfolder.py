"""The folder in which a build grows, beside the one that it will be.

    .NAME.partial/lock       held while a build runs: one at a time
    .NAME.partial/recipe     which recipe, and which versions of the programs that decide rows, the rest belongs to
    .NAME.partial/parsed/    what a build that was killed goes on from
    .NAME.partial/made/
    .NAME.partial/data/      what is renamed to NAME, with its index as the last file

A kill between any two steps loses at most the work of a chunk: what is there is whole and belongs to the stated recipe,
or is done again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from bigchem import strict
from bigchem.data.index import FORMAT, SPLITS
from bigchem.data.locks import lock
from bigchem.errors import UserError
from bigchem.progress import Progress

OURS = {"index.json", "tokenizer", "lengths", "rejected.jsonl", *SPLITS}
"""What a published folder holds."""


@contextmanager
def work_folder(out: Path, recipe: str, progress: Progress) -> Iterator[Path]:
    """The folder of a build of `out`, with what an interrupted one of the same recipe left; UserError if one runs."""
    work = _aside(out, "partial")
    with suppress(FileExistsError):
        work.mkdir(parents=True)
    with (work / "lock").open("ab") as handle:
        # After a publication the lock's file may be another one, or none.
        if not lock(handle, wait=False) or not (work / "lock").is_file():
            raise UserError("another build is writing it", str(out), "wait for that one, or end it")
        state, stated = work / "recipe", f"{FORMAT} {recipe} {version('rdkit')} {version('tokenizers')}\n"
        if not state.is_file() or state.read_text(encoding="utf-8") != stated:
            state.unlink(missing_ok=True)  # first: from here on the rest belongs to nobody
            for name in ("data", "made", "parsed"):
                shutil.rmtree(work / name, ignore_errors=True)
            strict.write_atomically(state, stated)
        elif any((work / "parsed").glob("*")):
            progress.say(f"going on with an interrupted build of {out}")
        for leftover in work.rglob(".*.partial"):  # of a build that was killed while it wrote
            leftover.unlink()
        yield work


def publish(work: Path, out: Path) -> None:
    """Gives the data its name, in the place of what had it."""
    old = _aside(out, "old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    (work / "data").replace(out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def tidy(out: Path) -> None:
    """Removes what a publication left that was killed behind its last rename; not what a running build has."""
    work = _aside(out, "partial")
    if not (work / "lock").is_file():
        return
    with (work / "lock").open("ab") as handle:
        if lock(handle, wait=False):
            shutil.rmtree(_aside(out, "old"), ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)


def refuse_foreign(out: Path) -> None:
    """UserError if `out` is anything but a folder that a build has published, or an empty one."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError("is a file", str(out), "choose a folder")
    foreign = sorted(path.name for path in out.iterdir() if path.name not in OURS)
    if foreign:
        raise UserError(f"holds '{foreign[0]}', which is not ours", str(out), "choose another folder")
    if any(out.iterdir()) and not (_is_index(out / "index.json") or (out / "tokenizer" / "tokenizer.json").is_file()):
        raise UserError("is not empty and holds no data of ours", str(out), "choose another folder")


def _is_index(file: Path) -> bool:
    """Whether it is an index of this or of an earlier format."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and {"format", "fingerprint", "shards"} <= table.keys()


def _aside(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")
