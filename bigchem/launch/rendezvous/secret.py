"""The secret that a run's ranks share, and the lines that they sign with it.

On a cluster anyone can see where a job's ranks are. So ranks prove to each other that they belong to one run: each can
read a file that only the run's owner can read. The secret itself is never sent.
"""

import errno
import hmac
import os
import secrets
import stat
import time
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous

VARIABLE = "BIGCHEM_RENDEZVOUS_KEY"
"""Overrides the file: for launchers that pass a secret, and for file systems without permissions."""
FILE = "rendezvous.key"
SHORTEST = 16
"""Minimum characters of a chosen secret."""
SHOWS_S = 10.0
"""Time in which a file that another node wrote appears on a network file system."""
SIGNATURE_BYTES = 65
"""A signature and its line end."""
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def rendezvous_key(folder: Path, place: Rendezvous) -> str | None:
    """The secret of the run in a folder: BIGCHEM_RENDEZVOUS_KEY, or the content of the folder's rendezvous.key, which
    the first rank to ask creates. None if none is needed: there is one rank, or torchrun serves the store.

    UserError if other users can read the file or own it.
    """
    if place.world_size == 1 or place.agent:
        return None
    return given_key() or _of_file(folder / FILE)


def given_key() -> str | None:
    """The secret from the environment, if any."""
    key = os.environ.get(VARIABLE)
    if key is not None and len(key) < SHORTEST:
        raise UserError(f"shorter than {SHORTEST} characters", VARIABLE, "export it from `openssl rand -hex 32`")
    return key


def new_key() -> str:
    """A random secret."""
    return secrets.token_hex(32)


class Signer:
    """Signs the lines of one meeting with the run's secret, for one attempt of one job."""

    def __init__(self, secret: str, attempt: str) -> None:
        self._key = hmac.digest(secret.encode(), attempt.encode(errors="replace"), "sha256")

    def signature(self, *parts: bytes) -> bytes:
        """Hexadecimal signature of parts without line breaks. The first names the sender, so that no line can pass for
        another side's."""
        return hmac.new(self._key, b"\n".join(parts), "sha256").hexdigest().encode()

    def holds(self, signature: bytes, *parts: bytes) -> bool:
        """Whether it is the signature of these parts, in constant time."""
        return hmac.compare_digest(signature, self.signature(*parts))


def _of_file(path: Path) -> str:
    deadline = time.monotonic() + SHOWS_S
    while (key := _read(path)) is None:
        if time.monotonic() > deadline:
            raise UserError("it is empty, or cannot be created", str(path), "remove it: the ranks create another")
        if not path.exists():
            _make(path)
        else:
            time.sleep(0.05)  # another rank is still writing it
    return key


def _read(path: Path) -> str | None:
    """The file's secret; None if the file is missing or incomplete."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), _hint()) from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UserError("is not a regular file", str(path), _hint())
        if found.st_uid != os.geteuid():
            raise UserError(f"belongs to another user, of id {found.st_uid}", str(path), _hint())
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"other users can open it: its mode is {found.st_mode & 0o777:o}", str(path), _hint())
        line = file.read(1024)
    if not line.endswith(b"\n"):
        return None
    key = line.decode("ascii", errors="replace").strip()
    if len(key) < SHORTEST:
        raise UserError(f"holds fewer than {SHORTEST} characters", str(path), _hint())
    return key


def _make(path: Path) -> None:
    """Creates the file atomically, unless another rank is quicker: a link never replaces a file. On a file system
    without hard links, the file appears before it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        _write_new(partial)
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno in NO_LINKS:
                _write_new(path)
            elif not isinstance(error, FileExistsError):
                raise
        finally:
            partial.unlink()
    except FileExistsError:
        return
    except OSError as error:
        raise UserError(f"cannot be created: {error.strerror}", str(path), _hint()) from None


def _write_new(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(new_key().encode() + b"\n")
        file.flush()
        os.fsync(descriptor)


def _hint() -> str:
    return f"remove it, and the ranks create another; or pass a secret in {VARIABLE}"
