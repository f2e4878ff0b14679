"""File locks that die with their process, on local disks and, where the server allows it, on NFS."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO

from bigchem.errors import UserError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def lock(handle: IO[bytes], *, wait: bool = True, shared: bool = False) -> bool:
    """Takes the lock of a file, for itself or with others that share it; False if it is held otherwise and wait is
    false.

    handle: open for writing, without which NFS gives no exclusive lock, or for reading, without which it gives no
    shared one (flock(2)). UserError where the file system has no locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise UserError(
                f"this file system has no locks: {error.strerror}", str(handle.name), "use a folder on a local disk"
            ) from None
        raise
    return True


def is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether the path still names this open file. Whoever holds its lock knows that it will: only they remove it."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
