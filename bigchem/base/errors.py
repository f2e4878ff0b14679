"""The error class for problems that the user can fix."""

import errno
import shutil
from difflib import get_close_matches
from typing import NoReturn

from bigchem.base.printable import printable


class UserError(Exception):
    """A problem outside bigchem's code: an input, a configuration, the machine.

    what: the problem, in one sentence. where: the file, line or field. hint: what to do next. The command line prints
    one to three lines, without a traceback, and exits with code 2.
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
    """The UserError for an error that means a full disk; None for any other."""
    where, full = None, False
    if isinstance(error, shutil.Error):  # of a folder copy: a list of (source, target, text)
        where, full = next(((str(to), True) for _, to, why in error.args[0] if "[Errno 28]" in str(why)), (None, False))
    elif isinstance(error, OSError):
        where, full = error.filename, error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full:
        return None
    return UserError("no space left on the disk", where, "make room, then repeat the command: it resumes")


def as_user_error(error: UserError | OSError) -> UserError:
    """The UserError that says what an operating system's error says; a UserError itself."""
    if isinstance(error, UserError):
        return error
    return full_disk(error) or UserError(error.strerror or repr(error), error.filename)


class StorageError(UserError):
    """Files cannot be read at present: a network, server or file system fails, perhaps temporarily."""


def nearest(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the nearest known name, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(known))}"


def unknown(kind: str, name: str, known: list[str], where: str | None = None) -> NoReturn:
    """Raises the UserError for an unknown name."""
    shown = printable(name, limit=200)
    raise UserError(f"unknown {kind} '{shown}'", where, nearest(shown, known))
