"""The index of a data folder: its files, their sizes and hashes. Published last.

    DATA/index.json                       fingerprint, task records, shards, other files
    DATA/tokenizer/                       loadable by transformers
    DATA/train/captioning-00000.arrow     rows: key, source, target, source_ids, target_ids
    DATA/lengths/train-captioning.npy     [rows, 2] uint16 or uint32: source and target tokens

Every file that a reader needs is listed with its size and sha256, so the whole folder can be verified.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.toml import quoted
from bigchem.tasks import Tasks, shipped

FORMAT = 3
SPLITS = ("train", "valid", "test")
AGAIN = "copy the data again, or rebuild it with --overwrite"


class File(NamedTuple):
    """A file's size and the hash of its content."""

    bytes: int
    sha256: str

    def damage(self, size: int, sha256: str | None = None) -> str | None:
        """What is wrong with a file of this size and, if known, this hash; None: nothing."""
        if size < self.bytes:
            return f"truncated, {size:,} of {self.bytes:,} bytes"
        if size > self.bytes:
            return f"altered, {size:,} bytes instead of {self.bytes:,}"
        if sha256 is not None and sha256 != self.sha256:
            return f"altered, sha256 {sha256[:12]}... instead of {self.sha256[:12]}..."
        return None


@dataclass(frozen=True)
class Shard:
    """One file of rows of one task. path: relative to the data folder."""

    path: str
    rows: int
    bytes: int
    sha256: str

    @property
    def file(self) -> File:
        """Its size and hash."""
        return File(self.bytes, self.sha256)


@dataclass(frozen=True)
class Index:
    """The content of index.json.

    tokenizer: its fingerprint. shards: by split and task. files: every other file that a reader needs, by path.
    report: counts of the build (rejected, leaked, ...). recipe: hash of the build's configuration and inputs; a rebuild
    with the same hash has nothing to do. known: the records of the tasks.
    """

    tokenizer: str
    shards: dict[str, dict[str, list[Shard]]]
    files: dict[str, File] = field(default_factory=dict)
    recipe: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    known: Tasks = field(default_factory=shipped)

    @property
    def fingerprint(self) -> str:
        """Identity of the data: 16 hexadecimal digits over the tokenizer, every shard's hash in order, and the hashes
        of the lengths, from which the steps of a run follow."""
        digest = hashlib.sha256(self.tokenizer.encode())
        for split in SPLITS:
            for task in sorted(self.known, key=lambda name: self.known[name].id):
                for shard in self.shards.get(split, {}).get(task, []):
                    digest.update(f"{split}/{task}/{shard.rows}/{shard.sha256}\n".encode())
        for name, file in sorted(self.under("lengths").items()):
            digest.update(f"{name}/{file.sha256}\n".encode())
        return digest.hexdigest()[:16]

    def rows(self, split: str) -> dict[str, int]:
        """Rows of each task that has any in this split. A shard holds a row once per prompt."""
        return {
            task: sum(s.rows for s in shards) // len(self.known[task].prompts)
            for task, shards in self.shards.get(split, {}).items()
        }

    def tasks(self) -> Iterator[tuple[str, str, list[Shard]]]:
        """(split, task, shards) of every task."""
        return ((split, task, shards) for split, tasks in self.shards.items() for task, shards in tasks.items())

    def under(self, folder: str) -> dict[str, File]:
        """The files in one folder that are not shards, by path relative to the data folder."""
        return {name: file for name, file in self.files.items() if name.startswith(f"{folder}/")}

    def to_json(self) -> str:
        """The text of index.json."""
        table = asdict(replace(self, known=Tasks(())))
        del table["known"]
        return json.dumps(
            {"format": FORMAT, "fingerprint": self.fingerprint, "tasks": self.known.to_json(), **table}, indent=1
        )

    @staticmethod
    def from_json(text: str, where: str) -> Index:
        """Reads index.json; UserError if it is not one, or if its fingerprint does not match its contents."""
        try:
            table = json_file.parse(text.encode(), where, hint=AGAIN)
            if table["format"] != FORMAT:
                raise UserError(f"index format {quoted(table['format'])}, expected {FORMAT}", where, AGAIN)
            shards = {
                split: {task: [Shard(**s) for s in listed] for task, listed in tasks.items()}
                for split, tasks in table["shards"].items()
            }
            files = {name: File(*stated) for name, stated in table["files"].items()}
            # Folders of versions before tasks were records hold those that ship.
            known = Tasks.from_json(table["tasks"], where) if "tasks" in table else shipped()
            index = Index(table["tokenizer"], shards, files, table["recipe"], table["report"], known)
            _check(index)
            stated = table["fingerprint"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not an index: {error!r}", where, AGAIN) from None
        if index.fingerprint != stated:
            raise UserError("the fingerprint does not match the contents", where, AGAIN)
        return index


def _check(index: Index) -> None:
    """ValueError unless every path stays inside the folder and every hash is valid: both become local file names."""
    if not isinstance(index.tokenizer, str) or not isinstance(index.recipe, str) or not isinstance(index.report, dict):
        raise TypeError("tokenizer, recipe or report is of a wrong type")
    listed = [(s.path, s.file) for _, _, shards in index.tasks() for s in shards] + list(index.files.items())
    for name, file in listed:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not re.fullmatch("[0-9a-f]{64}", file.sha256):
            raise ValueError(f"bad path or sha256 of {name}")
    sizes = [n for _, _, shards in index.tasks() for s in shards for n in (s.rows, s.bytes)]
    if any(type(n) is not int or n < 1 for n in [*sizes, *(file.bytes for file in index.files.values())]):
        raise ValueError("a file without rows or bytes")
    for split, task, shards in index.tasks():
        if split not in SPLITS or task not in index.known:
            raise ValueError(f"unknown split or task {split}/{task}")
        if not shards or lengths_path(split, task) not in index.files:
            raise ValueError(f"no shards or no lengths of {split}/{task}")


def shard_path(split: str, task: str, number: int) -> str:
    """A shard's path, relative to the data folder."""
    return f"{split}/{task}-{number:05d}.arrow"


def lengths_path(split: str, task: str) -> str:
    """The path of a task's lengths, relative to the data folder."""
    return f"lengths/{split}-{task}.npy"


def other_files(root: Path) -> dict[str, File]:
    """`Index.files` of a folder that lacks only its index: tokenizer and lengths, hashed."""
    found = [*(root / "tokenizer").rglob("*"), *root.glob("lengths/*.npy")]
    files = {}
    for path in sorted(p for p in found if p.is_file()):
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        files[path.relative_to(root).as_posix()] = File(path.stat().st_size, digest)
    return files


def all_leaked(task: str, leaks: Mapping[str, Any]) -> str:
    """The message about a task that lost all its training rows. leaks: its entry in drop_leaked's report."""
    held_out = leaks["by_held_out"].items()
    sets = [f"{overlap['rows'] or overlap['skeleton_rows']:,} about molecules of {name}" for name, overlap in held_out]
    if leaks["same_source"]:
        sets.append(f"{leaks['same_source']:,} with the source of a held-out row of {task}")
    return f"all {leaks['rows']:,} training rows of {task} are dropped as leaks: {', '.join(sets)}"
