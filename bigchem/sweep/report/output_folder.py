"""Folders that an analysis writes whole: its own of an earlier time may go, what anyone else put there may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigchem.base import json_file
from bigchem.base.atomic import replace_folder
from bigchem.base.errors import UserError
from bigchem.base.json_file import as_kind

LIST = ".written.json"
"""In such a folder: the files that were written."""


@contextmanager
def replace_written(folder: Path) -> Iterator[Path]:
    """replace_folder, for a folder that check_written allows; what is in it when the block ends is listed in LIST."""
    check_written(folder)
    with replace_folder(folder) as aside:
        yield aside
        (aside / LIST).write_text(json.dumps(_files(aside)), encoding="utf-8")


def check_written(folder: Path) -> None:
    """UserError unless nothing is lost when this folder is replaced: it is absent, or empty, or all of it is listed."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError("is no folder", str(folder), "choose another")
    listed = folder / LIST
    hint = "choose another folder, or remove this one"
    names = as_kind(list[str], json_file.load(listed, hint=hint), str(listed), hint=hint) if listed.is_file() else None
    known = set() if names is None else {LIST, *names}
    if others := [file for file in _files(folder) if file not in known]:
        raise UserError(
            f"would be replaced, and holds what was not written here: {others[0]}", str(folder), "choose another folder"
        )


def _files(folder: Path) -> list[str]:
    """Files and links, by their path below this one."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )
