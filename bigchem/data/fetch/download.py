"""Downloads that resume, and how a file of the tree is made from what was downloaded."""

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bigchem.base.atomic import fsync
from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.data.fetch.manifest import CHUNK

PIECE = 1 << 16
"""Bytes that an interruption loses at most; huggingface_hub's 10 MB are more than most of these files have."""


class UnreachableError(UserError):
    """A server does not answer: others of its files will not come either."""


def download(url: str, to: Path) -> None:
    """Fetches a URL. An interrupted download leaves `to` with the suffix .part, from which the next one resumes.

    UnreachableError if there is no answer; UserError for any other failure.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get  # ranges, retries, servers that ignore a range
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()  # it reports each retry
    constants.DOWNLOAD_CHUNK_SIZE = PIECE
    part = to.with_name(f"{to.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        try:
            http_get(url, file, resume_size=file.tell())
        except Exception as error:  # of the library's own HTTP client
            raise _failure(error, url, part) from error
        file.flush()
        os.fsync(file.fileno())
    part.replace(to)
    fsync(to.parent)


def _failure(error: Exception, url: str, part: Path) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 416:  # nothing after what is here: it was whole, or the file has changed
        part.unlink()
        return UserError("what was downloaded before does not fit", url, "repeat the command: it starts anew")
    if status is not None:
        return UserError(f"the server answers {status}", url)
    if isinstance(error, OSError) and error.errno is None and "Consistency check" in str(error):
        return UserError("the connection ended too early", url, "repeat the command: it resumes")
    return UnreachableError(f"no answer: {one_line(error)}", url, "repeat the command: it resumes")


def content(files: Sequence[Path], member: str | None) -> Iterator[bytes]:
    """What the tree has of downloaded files: the file, a member of an archive, or the CSV of two files of tokens.

    UserError if an archive has no such member, or is none.
    """
    if len(files) == 2:
        try:
            yield from _joined(*files)
        except ValueError as error:
            raise UserError(f"not parallel lines of tokens: {one_line(error)}", files[0].name) from error
        return
    if member is None:
        with files[0].open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        return
    try:
        yield from _member(files[0], member)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"not an archive: {one_line(error)}", files[0].name) from error


def _member(archive: Path, name: str) -> Iterator[bytes]:
    """The one file of that name, in whatever folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            with zipped.open(_only(zipped.namelist(), name, archive)) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            return
    with tarfile.open(archive) as tar:
        inside = tar.extractfile(_only([item.name for item in tar if item.isfile()], name, archive))
        while inside is not None and (chunk := inside.read(CHUNK)):
            yield chunk


def _only(names: Sequence[str], name: str, archive: Path) -> str:
    found = [one for one in names if Path(one).name == name and "__MACOSX" not in one]
    if len(found) != 1:
        raise UserError(f"{len(found)} files called {name} in it: {', '.join(names)[:200]}", archive.name)
    return found[0]


def _joined(sources: Path, targets: Path) -> Iterator[bytes]:
    """`<RX_1> C C O` and `C C . O` as the line `1,CC.O>>CCO` of a CSV."""
    yield b"class,reactants>reagents>production\r\n"
    with sources.open(encoding="utf-8") as products, targets.open(encoding="utf-8") as reactants:
        for product, precursors in zip(products, reactants, strict=True):
            label, *characters = product.split()
            number = label.removeprefix("<RX_").removesuffix(">")
            yield f"{number},{''.join(precursors.split())}>>{''.join(characters)}\r\n".encode()
