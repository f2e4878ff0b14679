"""The one error class for mistakes that a user can mend."""

from __future__ import annotations

import errno
import shutil
from difflib import get_close_matches
from typing import NoReturn

from bigchem.base.printable import printable


class UserError(Exception):
    """Something outside bigchem's code is wrong: an input, a configuration, the machine.

    what: what is wrong, in one sentence.
    where: the file, line or field, if there is one.
    hint: what to do next.

    The command line prints it in one to three lines, without a traceback, and exits with code 2.
    """

    def __init__(self, what: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.hint is not None:
            lines.append(f"next: {self.hint}")
        return "\n".join(lines)


def full_disk(error: BaseException) -> UserError | None:
    """What a user reads, if an error says that a disk is full; else None."""
    where, full = None, False
    if isinstance(error, shutil.Error):  # of a folder: a list of (source, target, text)
        where, full = next(((str(to), True) for _, to, why in error.args[0] if "[Errno 28]" in str(why)), (None, False))
    elif isinstance(error, OSError):
        where, full = error.filename, error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full:
        return None
    return UserError("no space left on the disk", where, "make room, then give the same command again: it goes on")


class StorageError(UserError):
    """Files that should be there cannot be read just now: a network, a server, a file system. It may pass."""


def nearest(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the nearest known one, or the list of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(known))}"


def unknown(kind: str, name: str, known: list[str], where: str | None = None) -> NoReturn:
    """Raises the UserError for a name that is not among the known ones."""
    shown = printable(name, most=200)
    raise UserError(f"unknown {kind} '{shown}'", where, nearest(shown, known))
