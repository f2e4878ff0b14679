"""The bytes of a local file or of a URL, streamed and decompressed."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.data.storage.remote import install_hint, is_url

CHUNK = 1 << 18
"""Bytes read at a time."""

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
}
"""First bytes of a compressed file. They decide, not the name; a name that contradicts them is refused."""
SUFFIXES = {
    ".gz": "gzip",
    ".bgz": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zst": "zstandard",
    ".zstd": "zstandard",
    ".zip": "zip",
}


def without_compression(name: str) -> str:
    """A file's name without the suffix of its compression."""
    suffix = Path(name).suffix.lower()
    return name[: -len(suffix)] if suffix in SUFFIXES else name


def content_name(path: str) -> str:
    """A local file's name without the suffix of its compression; if a zip archive's has no other, its one file's name.

    UserError if the archive holds several files.
    """
    name = without_compression(Path(path).name)
    if Path(name).suffix or not zipfile.is_zipfile(path):
        return name
    with zipfile.ZipFile(path) as archive:
        return _only_member(archive, path).filename


def byte_chunks(path: str) -> Iterator[bytes]:
    """The content of a file or URL, CHUNK bytes at a time. gzip, bzip2, xz, Zstandard, and a zip archive of one file
    are decompressed. UserError if there is no such file or it cannot be read."""
    kind: str | None = None
    try:
        with _opened(path) as raw:
            kind = _kind(raw, path)
            with _decompressed(raw, kind, path) as content:
                while chunk := content.read(CHUNK):
                    yield chunk
    except UserError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise _damaged(path, error, kind or "whole") from error
    except OSError as error:
        if kind is not None and error.errno is None:  # bz2 and pyarrow raise it for damaged data
            raise _damaged(path, error, kind) from error
        raise UserError(f"cannot read: {error.strerror or one_line(error)}", path) from error
    except Exception as error:  # every protocol raises errors of its own library
        if not is_url(path):
            raise
        raise UserError(f"cannot read: {one_line(error)}", path) from error


def _damaged(path: str, error: Exception, kind: str) -> UserError:
    return UserError(f"cannot read: {one_line(error)}", path, f"the file is truncated or not {kind}; fetch it again")


def _kind(raw: io.BufferedReader, path: str) -> str | None:
    """How the content is compressed. UserError if the name says that it is and the content is not."""
    head = raw.peek(8)
    found = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    name = urlsplit(path.split("::", maxsplit=1)[0]).path or path if is_url(path) else path
    stated = SUFFIXES.get(Path(name).suffix.lower())
    if found is None and stated is not None:
        hint = f"the file is truncated or not {stated}; fetch it again, or rename it if it is plain text"
        raise UserError(f"cannot read: its name says {stated}, its first bytes do not", path, hint)
    return found


@contextmanager
def _decompressed(raw: io.BufferedReader, kind: str | None, path: str) -> Iterator[BinaryIO]:
    content: object = raw
    if kind == "gzip":
        content = gzip.GzipFile(fileobj=raw)
    elif kind == "bzip2":
        content = bz2.BZ2File(raw)
    elif kind == "xz":
        content = lzma.open(raw)  # noqa: SIM115, closing `raw` is enough
    elif kind == "zstandard":
        import pyarrow as pa  # the standard library of Python 3.11 has no Zstandard

        content = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    elif kind == "zip":
        with zipfile.ZipFile(raw) as archive, archive.open(_only_member(archive, path)) as member:
            yield cast(BinaryIO, member)
        return
    yield cast(BinaryIO, content)


def _only_member(archive: zipfile.ZipFile, path: str) -> zipfile.ZipInfo:
    """The one file in an archive, macOS's metadata aside. UserError for several, none, or an encrypted one."""
    members = [item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(member.filename[:40] for member in members[:6])
        hint = f"name the one to read: zip://FILE::{path}" if members else "is it the right archive?"
        raise UserError(f"an archive of {len(members)} files, not one: {names}".rstrip(": "), path, hint)
    if members[0].flag_bits & 1:
        raise UserError("an encrypted archive", path, "unpack it, and name the file inside")
    return members[0]


@contextmanager
def _opened(path: str) -> Iterator[io.BufferedReader]:
    if is_url(path):
        keep, raw = _remote(path)  # an archive closes its file when the last reference to `keep` goes
        with raw:
            yield raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw), CHUNK)
        del keep
        return
    if Path(path).is_dir():
        raise UserError("a folder, not a file", path, f"name its files: '{path}/*'")
    if not Path(path).is_file():
        raise UserError("no such file", path, "check `path` in the recipe, or add --set root=FOLDER")
    with Path(path).open("rb", buffering=CHUNK) as raw:
        yield cast(io.BufferedReader, raw)


def _remote(path: str) -> tuple[object, BinaryIO]:
    import fsspec  # heavy, and not needed for local files

    try:
        opened = fsspec.open(path, "rb")
        return opened, cast(BinaryIO, opened.open())
    except ImportError as error:
        raise UserError(f"cannot open: {one_line(error)}", path, install_hint(path)) from error
    except FileNotFoundError as error:
        raise UserError("no such file, or no response", path, "check the URL in the recipe") from error
    except Exception as error:
        raise UserError(f"cannot open: {one_line(error)}", path, "check the URL and your access to it") from error
