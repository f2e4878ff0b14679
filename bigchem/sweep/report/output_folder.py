"""Folders that an analysis replaces whole: its own earlier files may go, anyone else's may not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigchem.base import json_file
from bigchem.base.atomic import replace_folder
from bigchem.base.errors import UserError
from bigchem.base.json_file import as_kind

LIST = ".written.json"
"""In such a folder: lists the files that the analysis wrote."""


@contextmanager
def replace_written(folder: Path) -> Iterator[Path]:
    """replace_folder, for a folder that check_written allows; at the end of the block, its files are listed in LIST."""
    check_written(folder)
    with replace_folder(folder) as partial:
        yield partial
        (partial / LIST).write_text(json.dumps(_files(partial)), encoding="utf-8")


def check_written(folder: Path) -> None:
    """UserError unless this folder may be replaced: it is absent or empty, or LIST names every file in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError("is not a folder", str(folder), "choose another")
    listed = folder / LIST
    hint = "choose another folder, or remove this one"
    names = as_kind(list[str], json_file.load(listed, hint=hint), str(listed), hint=hint) if listed.is_file() else None
    known = set() if names is None else {LIST, *names}
    if foreign := [file for file in _files(folder) if file not in known]:
        raise UserError(
            f"would be replaced, but {foreign[0]} was not written by an analysis", str(folder), "choose another folder"
        )


def _files(folder: Path) -> list[str]:
    """Files and links, by their path relative to the folder."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )
