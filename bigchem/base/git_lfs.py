"""Pointers that Git leaves instead of large files, in a clone without Git LFS. Pure."""

from pathlib import Path

from bigchem.base.errors import UserError

BEGINS = b"version https://git-lfs.github.com/spec/v1"
WHAT = "a Git LFS pointer, not the file"
HINT = "run `git lfs pull` in its repository, or fetch the file again"


def refuse_pointer(path: Path) -> None:
    """UserError if a file is a pointer; OSError if it cannot be opened."""
    with path.open("rb") as file:
        if file.read(len(BEGINS)) == BEGINS:
            raise UserError(WHAT, str(path), HINT)
