"""The tasks that a file or folder defines."""

from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.data.storage.remote import is_url
from bigchem.data.storage.shards import Data
from bigchem.tasks import FILE, Tasks, merged, read_records, shipped, tasks_of


def tasks_at(place: str | None) -> Tasks:
    """Tasks of a TOML file with `[tasks.NAME]` tables (with those that ship), of a data folder or its URL, of a run or
    of an exported model; None: those that ship. UserError if it is none of these."""
    if place is None:
        return shipped()
    if is_url(place) or (Path(place) / "index.json").is_file():
        return Data(place).tasks
    if Path(place).is_dir():
        if (Path(place) / FILE).is_file():
            return tasks_of(Path(place))
        raise UserError("defines no tasks", place, "give a TOML file of [tasks.NAME], a data folder, a run or a model")
    return merged(read_records(place))
