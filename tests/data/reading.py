"""Reading a source, for the tests of the readers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from real_files import REAL_DATA

from bigchem.base import toml
from bigchem.data.sources import read_rows, reader
from bigchem.data.sources.base import Row, RowError, SourceConfig
from bigchem.tasks import Tasks, shipped


def config(name: str, path: Path | str | None, **fields: object) -> SourceConfig:
    path = None if path is None else str(path)
    return SourceConfig.model_validate({"format": name, "split": "train", "path": path, **fields})


def check(fields: dict[str, object]) -> None:
    """Refuses what a recipe's loader refuses of a source."""
    source = toml.validate(SourceConfig, {"split": "train", **fields}, "recipe.toml")
    source.check_tasks(shipped(), reader(source.format).gives, "recipe.toml")


def write(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def read(source: SourceConfig, limit: int | None = None, *, tasks: Tasks | None = None) -> tuple[list[Row], list[str]]:
    """Rows, and reasons for rejection. tasks: those that ship."""
    tasks = tasks or shipped()
    rows, reasons = [], []
    for record in islice(reader(source.format).records(source, tasks), limit):
        try:
            rows += read_rows(record, source, tasks)
        except RowError as error:
            reasons.append(str(error))
    return rows, reasons


def published(*parts: str) -> str:
    file = REAL_DATA.joinpath(*parts)
    if not file.is_file():
        pytest.skip(f"no {'/'.join(parts)}: set BIGCHEM_DATA")
    return str(file)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder tree, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
