"""Assembles a tree of public files, and says what is missing and where it goes."""

import contextlib
import gzip
import hashlib
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import tomli_w
from rich.table import Table

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.base.progress import Bar, Progress
from bigchem.data.fetch.download import UnreachableError, content, download
from bigchem.data.fetch.manifest import Wanted

DOWNLOADS = ".bigchem-downloads"
"""Folder of the tree for archives, interrupted downloads, and what users fetch elsewhere and copy there; removed when
nothing is left to fetch. Its name is ours alone: the tree may be a folder that has `downloads` of its own."""


@dataclass(frozen=True)
class Outcome:
    """A file after a fetch. state: here, fetched, differs (from what the manifest states) or missing. why: of the last
    two, and what to do."""

    file: Wanted
    state: str
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether it should have come from its origin, and did not."""
        return bool(self.file.urls) and self.state in ("differs", "missing")


def fetch(files: Sequence[Wanted], root: Path, progress: Progress) -> list[Outcome]:
    """Fetches the files that are not in the folder `root`. Nothing that is there is overwritten or removed.

    Each file is checked against its size and hash before it gets its name. A failure does not stop the others; a
    server that does not answer is not asked again.
    """
    silent: set[str] = set()
    with progress.bar("fetching public files", len(files)) as bar:
        found = [_outcome(file, root, silent, bar) for file in files]
    if not any(outcome.failed for outcome in found):
        shutil.rmtree(root / DOWNLOADS, ignore_errors=True)
    return found


def _outcome(file: Wanted, root: Path, silent: set[str], bar: Bar) -> Outcome:
    bar.advance()
    path = root / file.path
    if path.exists():
        damage = file.damage(root)
        if damage is None:
            return Outcome(file, "here")
        return Outcome(file, "differs", f"{damage}: remove it to fetch it" if file.urls else "a file of your own")
    if not file.urls:
        return Outcome(file, "missing", f"put it at {path}: {file.group.hint}")
    parts = downloads(file, root)
    where = "; ".join(f"copy {url} to {part}" for url, part in zip(file.urls, parts, strict=True))
    if silent.intersection(map(_server, file.urls)) and not all(part.is_file() for part in parts):
        return Outcome(file, "missing", f"no answer; {where}")
    try:
        _make(file, root / file.path, parts)
    except UserError as error:
        if isinstance(error, UnreachableError):
            silent.update(map(_server, file.urls))
        return Outcome(file, "missing", f"{error.what}; {where}")
    return Outcome(file, "fetched")


def downloads(file: Wanted, root: Path) -> list[Path]:
    """Where each of its URLs is downloaded to, or copied to by hand."""
    return [root / DOWNLOADS / f"{file.group.folder}-{Path(url).name}" for url in file.urls]


def _make(file: Wanted, path: Path, parts: Sequence[Path]) -> None:
    """Downloads what the file is made of, and makes it. Altered bytes are set aside and fetched once more."""
    for last in (False, True):
        for url, part in zip(file.urls, parts, strict=True):
            if not part.is_file():
                download(url, part)
        try:
            _write(file, path, parts)
        except UserError:
            for part in parts:
                part.replace(part.with_name(f"{part.name}.altered"))
            if last:
                raise
        else:
            break
    if file.member is None:
        for part in parts:
            part.unlink()


def _write(file: Wanted, path: Path, parts: Sequence[Path]) -> None:
    """Writes the file if its content has the size and hash that the manifest states; UserError otherwise."""
    digest, size = hashlib.sha256(), 0
    with atomic.replace_atomically(path) as raw, _compressed(raw, path) as out:
        for chunk in content(parts, file.member):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
        damage = file.content.damage(size, digest.hexdigest())
        if damage is not None:
            raise UserError(f"the downloaded file is {damage}", file.path)


def _compressed(raw: IO[bytes], path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    if path.suffix != ".gz":
        return contextlib.nullcontext(raw)
    return cast(IO[bytes], gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))


def _server(url: str) -> str:
    return urlsplit(url).netloc


def recipe_of(shipped: Path, root: Path) -> tuple[str | None, list[str]]:
    """A shipped recipe without the sources whose files are not in the folder, as TOML, or None if none is left; and the
    paths left out."""
    table: dict[str, Any] = tomllib.loads(shipped.read_text(encoding="utf-8"))
    missing = {
        path
        for source in table["sources"]
        for path in (source["path"], source.get("target_path", source["path"]))
        if not (root / path).is_file()
    }
    table["sources"] = [
        source for source in table["sources"] if not missing.intersection((source["path"], source.get("target_path")))
    ]
    return tomli_w.dumps(table) if table["sources"] else None, sorted(missing)


def table(found: Sequence[Outcome]) -> Table:
    """The files with their sizes and states, then the licences by folder."""
    shown = Table(title="public files; sizes are of their content", title_justify="left")
    for name in ("file", "bytes", "state", "what to do"):
        shown.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for outcome in found:
        shown.add_row(markup(outcome.file.path), f"{outcome.file.content.bytes:,}", outcome.state, markup(outcome.why))
    shown.add_section()
    for group in {outcome.file.group.folder: outcome.file.group for outcome in found}.values():
        shown.add_row(markup(f"{group.folder}/"), "", "licence", markup(f"{group.licence} ({group.origin})"))
    return shown


def to_json(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {
            "path": outcome.file.path,
            **outcome.file.content._asdict(),
            "state": outcome.state,
            "why": outcome.why,
            "urls": list(outcome.file.urls),
            "licence": outcome.file.group.licence,
        }
        for outcome in found
    ]
