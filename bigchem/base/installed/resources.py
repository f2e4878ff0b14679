"""Files shipped with bigchem: DeepSpeed configurations, cluster profiles, recipes, environments, tested versions."""

from collections.abc import Iterable
from pathlib import Path

from bigchem.base.errors import UserError, nearest
from bigchem.base.printable import printable

_PACKAGE = Path(__file__).parents[2]
_FOLDERS = {
    "ds_configs": (_PACKAGE.parent / "ds_configs", _PACKAGE / "_shipped" / "ds_configs"),
    "clusters": (_PACKAGE.parent / "slurm" / "clusters", _PACKAGE / "_shipped" / "clusters"),
    "environments": (_PACKAGE.parent / "slurm" / "environments", _PACKAGE / "_shipped" / "environments"),
    "recipes": (_PACKAGE / "recipes",),
}
_CONSTRAINTS = "constraints.txt"
"""The versions of other packages that the tests ran with; beside the folders."""


def folder(kind: str) -> Path:
    """The folder of a kind of shipped files: beside the package in a checkout, inside it when installed."""
    return next((f for f in _FOLDERS[kind] if f.is_dir()), _FOLDERS[kind][0])


def names(kind: str) -> list[str]:
    """The names of a kind of files, without suffixes."""
    return sorted(path.stem for path in folder(kind).iterdir() if path.is_file() and path.name != "README.md")


def every() -> dict[str, Path]:
    """All shipped files, by kind and name: clusters/a100.toml."""
    found = {f"{kind}/{path.relative_to(folder(kind))}": path for kind in _FOLDERS for path in _files(folder(kind))}
    beside = [root / _CONSTRAINTS for root in (_PACKAGE.parent, _PACKAGE / "_shipped")]
    return {**dict(sorted(found.items())), **{path.name: path for path in beside if path.is_file()}}


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def find(kind: str, name: str, suffix: str, also: Iterable[str] = ()) -> Path:
    """A shipped file by name, or any file by path. UserError with the nearest name. also: further valid names, which
    are not files."""
    if _is_file(Path(name)):
        return Path(name)
    shown = printable(name, limit=200)
    if name.endswith(suffix) or "/" in name:
        raise UserError("no such file", shown)
    candidate = folder(kind) / f"{name}{suffix}"
    if _is_file(candidate):
        return candidate
    known = [*also, *(p.name.removesuffix(suffix) for p in folder(kind).glob(f"*{suffix}"))]
    raise UserError(f"no file '{shown}', and no shipped file of that name", kind, nearest(name, known))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False
