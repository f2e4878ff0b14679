"""The error for a path that is not a run folder."""

from pathlib import Path

from bigchem.base.errors import UserError

_NAMED = 5


def not_a_run(path: Path, hint: str) -> UserError:
    """The error for such a path. If it holds runs, as the folder that `bigchem fine-tune` makes does, it names them."""
    inside = sorted(str(file.parent) for file in path.glob("*/config.toml"))
    if inside:
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        return UserError("no run, but it holds some", str(path), f"name one: {', '.join(inside[:_NAMED])}{more}")
    what = "no run here" if path.is_dir() else "a file, not a folder" if path.exists() else "no such folder"
    return UserError(what, str(path), hint)
