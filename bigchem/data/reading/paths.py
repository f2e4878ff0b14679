"""From a recipe's `path` (one file, several, or a pattern) to file names."""

from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.data.storage.remote import install_hint, is_url


def listed(path: str | Sequence[str] | None) -> tuple[str, ...]:
    """The paths that a recipe names, patterns not expanded."""
    return (path,) if isinstance(path, str) else tuple(path or ())


def expand(path: str | Sequence[str]) -> list[str]:
    """The files named by a path, a pattern (`*`, `?`, `[...]`, `**`; in URLs only `*`), or a list of either.

    A pattern's files are sorted by name. The name of an existing file is not a pattern. UserError for a pattern that no
    file matches and for a file that is named twice.
    """
    found = [file for pattern in listed(path) for file in _matches(pattern)]
    twice = next((file for file in found if found.count(file) > 1), None) if len(found) > 1 else None
    if twice is not None:
        raise UserError("named twice: its rows would count twice", twice, "name each file once in `path`")
    return found


def pattern_folder(path: str) -> Path:
    """The deepest folder that contains everything a local path or pattern may name."""
    return next(folder for folder in Path(path).parents if not has_magic(str(folder)))


def _matches(path: str) -> Iterator[str]:
    if is_url(path):
        files = sorted(_remote_matches(path)) if "*" in path else [path]
    elif has_magic(path) and not Path(path).exists():
        folder = pattern_folder(path)
        files = sorted(str(file) for file in folder.glob(str(Path(path).relative_to(folder))) if file.is_file())
    else:
        files = [path]
    if not files:
        raise UserError("no file matches", path, "check the pattern in `path`, or add --set root=FOLDER")
    yield from files


def _remote_matches(url: str) -> list[str]:
    from fsspec.core import url_to_fs  # heavy, and not needed for local files

    try:
        system, pattern = url_to_fs(url)
        return [system.unstrip_protocol(name) for name in system.glob(pattern) if system.isfile(name)]
    except ImportError as error:
        raise UserError(f"cannot open: {one_line(error)}", url, install_hint(url)) from error
    except Exception as error:  # every protocol raises errors of its own library
        raise UserError(f"cannot list: {one_line(error)}", url, "name the files one by one") from error
