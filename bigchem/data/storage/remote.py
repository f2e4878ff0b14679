"""Reading files at a URL (s3://, https://, hf://, memory://, ...) through fsspec, with errors for the user."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from bigchem.base.errors import StorageError, UserError
from bigchem.base.installed.packages import install
from bigchem.data.storage.index import File

PAUSES_S = (0.5, 1.0, 2.0)
"""Pauses before each retry of a failed download."""
CHUNK = 1 << 20
SILENCE_S = 60
"""Seconds without a byte after which an HTTP download is retried."""
_URL = re.compile(r"[a-zA-Z][\w+.-]*(://|::)")
_EXTRAS = {"https": "http", "s3a": "s3", "az": "abfs", "abfss": "abfs"}
"""fsspec's extras that are not named after their protocol."""
T = TypeVar("T")


class TransientError(Exception):
    """A failure that may not recur."""


def is_url(path: str | Path) -> bool:
    """Whether it is opened by fsspec (`s3://`, `https://`, `hf://`, `memory://`, chained `zip://a::...`)."""
    return _URL.match(str(path)) is not None


def install_hint(url: str) -> str:
    """The command that installs a URL's protocol."""
    protocol = re.split("://|::", url, maxsplit=1)[0]
    return install(f"fsspec[{_EXTRAS.get(protocol, protocol)}]")


def read(url: str) -> bytes:
    """The content of a small file; UserError naming the URL if it cannot be read."""
    return retried(url, lambda: b"".join(_chunks(url)))


def download(url: str, file: File, write: Callable[[bytes], object], restart: Callable[[], object]) -> None:
    """Streams a file into `write`, at most `file.bytes` bytes of it, and checks size and hash.

    restart: called before each attempt. UserError naming the URL if the file cannot be read or is not as stated.
    """

    def attempt() -> None:
        restart()
        digest, size = hashlib.sha256(), 0
        for chunk in _chunks(url, file.bytes):
            size += len(chunk)
            if size > file.bytes:
                break
            digest.update(chunk)
            write(chunk)
        damage = file.damage(size, digest.hexdigest())
        if damage is not None:
            raise TransientError(damage)

    retried(url, attempt)


def retried(url: str, attempt: Callable[[], T]) -> T:
    """The result of the first attempt without a TransientError; StorageError naming the URL after the last."""
    for pause in PAUSES_S:
        try:
            return attempt()
        except TransientError:
            time.sleep(pause)
    try:
        return attempt()
    except TransientError as error:
        raise StorageError(
            f"{error} ({len(PAUSES_S) + 1} attempts)", url, "try again, or copy the data again"
        ) from None


def _chunks(url: str, size: int | None = None) -> Iterator[bytes]:
    try:
        with _open(url, size) as remote:
            while chunk := remote.read(CHUNK):
                yield chunk
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("missing", url, "does the URL name a data folder?") from None
    except Exception as error:  # every protocol raises errors of its own library
        status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
        what = f"cannot read: {' '.join(str(error).split()) or type(error).__name__}"
        refused = isinstance(status, int) and 400 <= status < 500 and status not in {408, 425, 429}
        if refused or isinstance(error, PermissionError):
            raise UserError(what, url, "may this account read it?") from None
        raise TransientError(what) from None


def _open(url: str, size: int | None) -> Any:
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    storage: dict[str, Any] = {}
    options: dict[str, Any] = {}
    try:
        if protocol in {"http", "https"}:
            from aiohttp import ClientTimeout

            # aiohttp's default ends any download after 5 minutes; only silence should.
            timeout = ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
            storage = {"client_kwargs": {"timeout": timeout}}
            options = {"block_size": 0, "size": size or 1}  # one GET, and no HEAD for the size
        fs, path = url_to_fs(url, **storage)
    except ImportError as error:
        raise UserError(f"{protocol}:// cannot be read: {error}", url, install_hint(url)) from None
    except ValueError as error:  # fsspec: "Protocol not known: ..."
        raise UserError(str(error), url, "use s3://, https://, hf:// or another protocol of fsspec") from None
    return fs.open(path, "rb", **options)
