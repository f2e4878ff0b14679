"""Hugging Face datasets: a local folder or file that the `datasets` library reads, or a hub dataset, streamed."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.data.reading.json_records import MISSING, lookup
from bigchem.data.reading.paths import expand, listed
from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.columns import optional_columns, plain_columns, record_columns, record_rows
from bigchem.data.sources.files import column_place
from bigchem.data.storage.remote import is_url
from bigchem.tasks import Task, Tasks

_BATCH = 1000
_BUILDERS = {"parquet": "parquet", "arrow": "arrow", "json": "json", "jsonl": "json", "csv": "csv"}
"""The library's builder for a kind of file, by suffix."""


class Datasets:
    """Any task, from the columns that the source names. Line numbers are row numbers from 1."""

    def gives(self, task: Task) -> bool:
        return True

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: the named columns; a missing value is an empty text, which `rows` refuses.

        UserError if the library cannot load it, or if a column is missing or is not text.
        """
        where = _where(source)
        try:
            yield from _records(source, tasks, where)
        except UserError:
            raise
        except Exception as error:  # the library's, pyarrow's, the hub's: no common class
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise UserError(f"datasets cannot load it: {one_line(cause)}", where, _hint(source)) from error

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """As in bigchem.data.sources.columns for the source's roles."""
        return record_rows(record, source, tasks)


def _where(source: SourceConfig) -> str:
    if source.hub is not None:
        return source.hub
    if not source.path:
        raise UserError(
            "format 'datasets' needs a file, a folder or a dataset", "sources", "add path = ... or hub = ..."
        )
    if isinstance(source.path, tuple) and len(source.path) > 1:
        raise UserError(f"{len(source.path)} paths", "sources", "format 'datasets' takes one: a pattern, or a folder")
    (path,) = listed(source.path)
    if not is_url(path) and not Path(path).exists() and not has_magic(path):
        raise UserError("no such file or folder", path, "check `path` in the recipe, or use hub = 'owner/name'")
    return path


def _hint(source: SourceConfig) -> str:
    if source.hub is None:
        return "it reads save_to_disk folders and parquet, arrow, json and csv files; check config_name and hub_split"
    return "check hub, config_name, hub_split and the network; without one, download it and use path"


def _records(source: SourceConfig, tasks: Tasks, where: str) -> Iterator[Record]:
    dataset, names = _selected(source, tasks, where)
    plain = {*plain_columns(source, tasks), *source.where, source.group_column}
    line = 0
    for batch in dataset.iter(batch_size=_BATCH):
        count = len(next(iter(batch.values())))
        texts = [
            [_text(_value(value, column, name), name, where, plain=name in plain) for value in batch[column]]
            if name
            else [""] * count
            for column, name in names
        ]
        for fields in zip(*texts, strict=True):
            line += 1
            yield Record(where, line, fields)


def _value(value: Any, column: str, name: str) -> Any:
    """The value of a column, or the nested value if the name continues after the column's."""
    found = value if name == column else lookup(value, name[len(column) + 1 :])
    return None if found is MISSING else found


def _text(value: Any, name: str, where: str, *, plain: bool) -> str:
    if value is None:
        return ""
    if plain and isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise UserError(f"column '{name}' contains {type(value).__name__}, not text", where, "name another column")
    return value


def _selected(source: SourceConfig, tasks: Tasks, where: str) -> tuple[Any, list[tuple[str, str]]]:
    """The dataset with only the needed columns, and for each needed name (the column that is or contains it, the name);
    both are "" for a missing optional one. For Parquet files, other columns are not even read."""
    import datasets

    if source.config_name and source.hub is None and not (Path(where).is_dir() and not _saved(where)):
        raise UserError("has only one configuration", where, "leave config_name out")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # errors are raised anyway
    saved = source.hub is None and _saved(where)
    builder = None if saved else _builder(source, where)
    dataset = _from_disk(source, where) if builder is None else builder.as_streaming_dataset(split=source.hub_split)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    names = [_column(where, columns, name, name in optional_columns(source)) for name in record_columns(source, tasks)]
    chosen = [*dict.fromkeys(column for column, _ in names if column)]
    if builder is not None and hasattr(builder.config, "columns"):
        builder.config.columns = chosen
        dataset = builder.as_streaming_dataset(split=source.hub_split)
    return dataset.select_columns(chosen), names


def _column(where: str, columns: Sequence[str], name: str, optional: bool) -> tuple[str, str]:
    """(the column that is or contains (`a.b`) the name, the name)."""
    outer = name.split(".", maxsplit=1)[0]
    if name not in columns and outer in columns:
        return outer, name
    return ("", "") if column_place(where, columns, name, optional) is None else (name, name)


def _saved(path: str) -> bool:
    """Whether save_to_disk wrote this folder."""
    return not is_url(path) and any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _from_disk(source: SourceConfig, where: str) -> Any:
    import datasets

    found = datasets.load_from_disk(where)
    if isinstance(found, datasets.DatasetDict):
        if source.hub_split not in found:
            raise UserError(f"no split '{source.hub_split}'; there are: {', '.join(found)}", where, "set hub_split")
        return found[source.hub_split]
    if source.hub_split != "train":
        raise UserError("a dataset without splits", where, "leave hub_split out")
    return found


def _builder(source: SourceConfig, path: str) -> Any:
    import datasets

    if source.hub is not None:
        return datasets.load_dataset_builder(source.hub, source.config_name)
    if Path(path).is_dir():
        return datasets.load_dataset_builder(path, source.config_name)
    suffix = Path(path.removesuffix(".gz")).suffix.removeprefix(".")
    if suffix not in _BUILDERS:
        raise UserError("cannot tell what kind of file it is", path, f"its name should end in: {' '.join(_BUILDERS)}")
    files = expand(path) if not is_url(path) else path
    return datasets.load_dataset_builder(_BUILDERS[suffix], data_files=files)


def splits_of(path: str) -> dict[str, Iterable[dict[str, Any]]]:
    """The rows of each split of a local dataset, read as they are needed. UserError if the library cannot load it."""
    import datasets

    datasets.disable_progress_bars()
    source = SourceConfig(format="datasets", split="train", path=path)
    try:
        if _saved(path):
            found = datasets.load_from_disk(path)
            return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
        return dict(_builder(source, path).as_streaming_dataset())
    except Exception as error:  # the library's, pyarrow's: no common class
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(f"datasets cannot load it: {one_line(cause)}", path, _hint(source)) from error
