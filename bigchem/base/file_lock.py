"""File locks that die with their process, on local disks and, if the server supports it, on NFS.

Some file systems have no locks (Lustre without `-o flock`, NFS without its lock service). Most locks only keep two user
commands on one folder apart: they print one warning and continue without. The data cache refuses, as all processes of
a node write into it all the time; it can be moved to a local disk.
"""

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
REPORT_AFTER_S, REPORT_EVERY_S = 2.0, 15.0
"""When a waiting process first reports the holder, and how often it repeats that."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
_warned = False


class NoLocksError(UserError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. purpose: a verb in the third person ("compiles cpu_adam"). since: Unix time."""

    host: str
    pid: Count
    since: Moment
    purpose: str

    def __str__(self) -> str:
        seconds = max(0.0, time.time() - self.since)
        stopped = ", and is stopped" if self._is_stopped() else ""
        return printable(f"pid {self.pid} on {self.host}, which {self.purpose} (for {seconds:.0f} s so far{stopped})")

    def _is_stopped(self) -> bool:
        """Whether SIGSTOP or Ctrl-Z has stopped it; False on another host."""
        if self.host != platform.node():
            return False
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except (OSError, IndexError):
            return False


@contextmanager
def exclusive(
    path: Path,
    purpose: str,
    *,
    timeout_s: float = 60.0,
    report_after_s: float = REPORT_AFTER_S,
    transient: bool = False,
) -> Iterator[bool]:
    """Holds the lock of a file while entered. Yields False, after a warning, where the file system has no locks.

    The file names its holder and purpose; waiting processes print that on stderr. UserError if the lock is not free
    within timeout_s (math.inf: wait indefinitely).

    purpose: a verb in the third person: "submits runs/base", "compiles cpu_adam".
    report_after_s: when a waiting process first reports the holder.
    transient: remove the file at the end, leaving nothing beside the folder that it protects.
    """
    while True:
        with path.open("a+b") as handle:
            locked = _acquire(handle, timeout_s, report_after_s)
            if locked and not is_at(handle, path):  # the previous holder removed it: new processes lock the new file
                continue
            try:
                if locked:
                    _write(handle, json.dumps(asdict(Holder(platform.node(), os.getpid(), time.time(), purpose))))
                yield locked
            finally:
                if transient:
                    path.unlink(missing_ok=True)
                elif locked:
                    _write(handle, "")
                if locked:
                    fcntl.flock(handle, fcntl.LOCK_UN)  # now, even if a child process has inherited the file
            return


def holder(path: Path) -> Holder | None:
    """The holder that the file of `exclusive` names; None if it is absent or names none. A killed process leaves its
    name, but not its lock."""
    try:
        return json_file.as_kind(Holder, json_file.load(path), str(path))
    except (OSError, RecordError):
        return None


def lock(handle: IO[bytes], *, wait: bool = True, shared: bool = False) -> bool:
    """Locks a file, exclusively or shared; False if another process has it and wait is false.

    handle: open for writing for an exclusive lock, for reading for a shared one, as NFS requires (flock(2)).
    NoLocksError where the file system has no locks.
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
    """Whether the path still names this open file. While its lock is held it does: only the holder removes it."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _acquire(handle: IO[bytes], timeout_s: float, report_after_s: float) -> bool:
    """True: locked. False: the file system has no locks."""
    begun, report_at = time.monotonic(), report_after_s
    path = Path(handle.name)
    try:
        while not lock(handle, wait=False):
            waited = time.monotonic() - begun
            owner = holder(path) or "another process"
            if waited >= timeout_s:
                raise UserError(f"waited {waited:.0f} s for {owner}", str(path), _remedy(holder(path)))
            if waited >= report_at:
                limit = "" if math.isinf(timeout_s) else f" (at most {timeout_s - waited:.0f} s more)"
                print(f"waiting for {owner}{limit}", file=sys.stderr, flush=True)
                report_at = waited + REPORT_EVERY_S
            time.sleep(POLL_S)
    except NoLocksError as error:
        _warn(error)
        return False
    return True


def _remedy(by: Holder | None) -> str:
    """A hint for a lock that is not released."""
    if by is None:
        return "`fuser` on that file names the process: wait for it, or end it; then repeat the command"
    at = "" if by.host == platform.node() else f" on {by.host}"
    return f"wait for it, or if it hangs or is stopped end it{at}: kill -9 {by.pid}; then repeat the command"


def _warn(error: NoLocksError) -> None:
    global _warned
    if not _warned:
        _warned = True
        advice = "nothing stops a second command on the same folder: run one at a time"
        print(f"warning: {error.where}: {error.what}; {advice}", file=sys.stderr, flush=True)


def _write(handle: IO[bytes], text: str) -> None:
    with suppress(OSError):  # a full disk: the lock still holds, without a name
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), text.encode())
