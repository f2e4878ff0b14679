"""The molecules a model was trained to generate: for novelty."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.chemistry import try_parse

if TYPE_CHECKING:
    from bigchem.data.storage.shards import Data

_SMILES = ("smiles", "canonical_smiles")
_CHECKED = 100


def molecules_of(data: Data) -> list[str] | None:
    """The target molecules of the training rows of tasks that generate molecules; None if there are none."""
    found = []
    for task in data.tasks.only(data.index.rows("train")).values():
        if task.family == "molecule":
            rows = data.split("train", task.name)
            found += [rows.text(row)[2] for row in range(len(rows))]
    return found or None


def read_training_set(path: Path) -> list[str]:
    """The molecules of a data folder or a text file, plain or .gz.

    In a file: the column `smiles`, if its first line names one (separated by tabs or commas), else the first word of
    each line. UserError if there are none, or if none of the first 100 parses.
    """
    if path.is_dir():
        from bigchem.data.storage.shards import Data

        found = molecules_of(Data(path))
        if not found:
            raise UserError("no training rows of a task that generates molecules", str(path))
        return found
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            lines = [line.rstrip("\r\n") for line in file if line.strip()]
    except FileNotFoundError:
        raise UserError("no such file or folder", str(path), "give SMILES, one a line, or a data folder") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read: {error}", str(path), "give SMILES in UTF-8, one a line, plain or .gz") from None
    separator = "\t" if lines and "\t" in lines[0] else ","
    names = [name.strip().strip('"').lower() for name in lines[0].split(separator)] if lines else []
    place = next((names.index(name) for name in _SMILES if name in names), None)
    if place is None:
        found = [re.split(r"[\s,]", line.strip(), maxsplit=1)[0] for line in lines]
    else:
        found = [fields[place] for line in lines[1:] if len(fields := line.split(separator)) > place]
    if not any(map(try_parse, found[:_CHECKED])):
        what = f"no molecule among the first {number_of('line', len(found[:_CHECKED]))}"
        raise UserError(what, str(path), "give SMILES, one a line, or a table with a column 'smiles'")
    return found
