"""File locks that die with their process, on local disks and, where the server allows it, on NFS.

Some file systems have no locks (Lustre without `-o flock`, NFS without its lock service). One rule holds for them. Most
locks keep two commands of a person apart that were given for one folder: there, a warning is printed once, and the
command goes on. Only the data cache refuses, because all processes of a node write into it at all times; it can be
moved to a local disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import Count, Moment, RecordError
from bigchem.base.printable import printable

POLL_S = 0.1
TELL_AFTER_S, TELL_EVERY_S = 2.0, 15.0
"""When a waiting process first says for whom it waits, and how often it says so again."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
_warned = False


class NoLocksError(UserError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. purpose: what for, as a verb in the third person ("compiles cpu_adam"). since: Unix time."""

    host: str
    pid: Count
    since: Moment
    purpose: str

    def __str__(self) -> str:
        seconds = max(0.0, time.time() - self.since)
        stopped = ", and is stopped" if self._is_stopped() else ""
        told = f"pid {self.pid} on {self.host}, which {self.purpose} (for {seconds:.0f} s so far{stopped})"
        return printable(told)

    def _is_stopped(self) -> bool:
        """By SIGSTOP or Ctrl-Z, as far as can be seen: it goes on with SIGCONT only."""
        if self.host != platform.node():
            return False
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except (OSError, IndexError):
            return False


@contextmanager
def exclusive(
    path: Path, purpose: str, *, timeout_s: float = 60.0, say_after_s: float = TELL_AFTER_S, transient: bool = False
) -> Iterator[bool]:
    """Holds the lock of a file while entered. Yields False where the file system has no locks, after a warning.

    The file says who holds it and what for; who waits repeats that on stderr. UserError if the lock is not free within
    timeout_s (math.inf: wait for ever).

    purpose: what the lock is for, as a verb in the third person: "submits runs/base", "compiles cpu_adam".
    say_after_s: when a process that waits first says so.
    transient: remove the file at the end, so that nothing is left beside the folder that it protects.
    """
    while True:
        with path.open("a+b") as handle:
            held = _acquire(handle, purpose, timeout_s, say_after_s)
            if held and not is_at(handle, path):  # the holder before removed it: others lock the new one
                continue
            try:
                if held:
                    _write(handle, json.dumps(asdict(Holder(platform.node(), os.getpid(), time.time(), purpose))))
                yield held
            finally:
                if transient:
                    path.unlink(missing_ok=True)
                elif held:
                    _write(handle, "")
                if held:
                    fcntl.flock(handle, fcntl.LOCK_UN)  # now, even if a child process has inherited the file
            return


def holder(path: Path) -> Holder | None:
    """Who holds the lock of `exclusive`, as its file says; None if the file is absent or names nobody. A process that
    was killed leaves its name, though not its lock."""
    try:
        return json_file.as_kind(Holder, json_file.load(path), str(path))
    except (OSError, RecordError):
        return None


def lock(handle: IO[bytes], *, wait: bool = True, shared: bool = False) -> bool:
    """Takes the lock of a file, for itself or with others that share it; False if it is held otherwise and wait is
    false.

    handle: open for writing, without which NFS gives no exclusive lock, or for reading, without which it gives no
    shared one (flock(2)). NoLocksError where the file system has no locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise NoLocksError(
                f"this file system has no locks: {error.strerror}", str(handle.name), "use a folder on a local disk"
            ) from None
        raise
    return True


def lock_if_possible(handle: IO[bytes], *, wait: bool = True, shared: bool = False) -> bool:
    """As `lock`; True where the file system has no locks, after a warning."""
    try:
        return lock(handle, wait=wait, shared=shared)
    except NoLocksError as error:
        _warn(error)
        return True


def is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether the path still names this open file. Whoever holds its lock knows that it will: only they remove it."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _acquire(handle: IO[bytes], purpose: str, timeout_s: float, say_after_s: float) -> bool:
    """True: held. False: the file system has no locks."""
    begun, say_at = time.monotonic(), say_after_s
    path = Path(handle.name)
    try:
        while not lock(handle, wait=False):
            waited = time.monotonic() - begun
            told = holder(path) or "another process"
            if waited >= timeout_s:
                raise UserError(f"waited {waited:.0f} s for {told}", str(path), _remedy(holder(path)))
            if waited >= say_at:
                limit = "" if math.isinf(timeout_s) else f" (at most {timeout_s - waited:.0f} s more)"
                print(f"waiting for {told}{limit}", file=sys.stderr, flush=True)
                say_at = waited + TELL_EVERY_S
            time.sleep(POLL_S)
    except NoLocksError as error:
        _warn(error)
        return False
    return True


def _remedy(by: Holder | None) -> str:
    """What to do about a lock that does not get free."""
    if by is None:
        return "`fuser` on that file names the process: let it end, or end it; then give the command again"
    at = "" if by.host == platform.node() else f" on {by.host}"
    return f"let it end, or end it{at} if it hangs or is stopped: kill -9 {by.pid}; then give the command again"


def _warn(error: NoLocksError) -> None:
    global _warned
    if not _warned:
        _warned = True
        told = "nothing keeps a second command for the same folder apart from this one: give one at a time"
        print(f"warning: {error.where}: {error.what}; {told}", file=sys.stderr, flush=True)


def _write(handle: IO[bytes], text: str) -> None:
    with suppress(OSError):  # a full disk: the lock holds all the same, only its message is poorer
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), text.encode())
