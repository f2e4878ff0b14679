"""The molecules a model was trained to generate: for novelty."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.base.progress import Progress
from bigchem.chemistry import try_parse
from bigchem.evaluate.named_columns import lines_of, named_columns
from bigchem.evaluate.trained import trained
from bigchem.tasks import Tasks, tasks_of

if TYPE_CHECKING:
    from bigchem.data.storage.shards import Data

_SMILES = ("smiles", "canonical_smiles")
_CHECKED = 100


@dataclass(frozen=True)
class TrainingData:
    """Data, and those of their tasks that a model is trained on."""

    data: Data
    tasks: Tasks

    def molecules(self) -> list[str] | None:
        """The target molecules of the training rows of tasks that generate molecules; None if there are none."""
        found = []
        for task in self.tasks.only(self.data.index.rows("train")).values():
            if task.family == "molecule":
                rows = self.data.split("train", task.name)
                found += [rows.text(row)[2] for row in range(len(rows))]
        return found or None


def training_data(model_dir: Path, *places: Callable[[], Data]) -> TrainingData | None:
    """The data that a model was trained on: the first of these that can be opened and have the fingerprint in the
    model's folder. None if there are none."""
    record = trained(model_dir)
    for opened in places if record is not None else ():
        try:
            data = opened()
        except (UserError, OSError):
            continue
        if record is not None and data.index.fingerprint == record.data.fingerprint:
            return TrainingData(data, data.tasks.only(tasks_of(model_dir)))
    return None


def read_training_set(path: Path) -> list[str]:
    """The molecules of a data folder or a text file, plain or compressed.

    In a file: the column `smiles`, if its first line names one (separated by tabs, commas or `;`), else the first word
    of each line. What RDKit does not read is left out, and counted. UserError if there are no molecules, or none among
    the first 100.
    """
    if path.is_dir():
        from bigchem.data.storage.shards import Data

        data = Data(path)
        found = TrainingData(data, data.tasks).molecules()
        if not found:
            raise UserError("no training rows of a task that generates molecules", str(path))
        return found
    texts = list(_texts(path))
    molecules = [text for text in texts[:_CHECKED] if try_parse(text)]
    if not molecules:
        what = f"no molecule among the first {number_of('line', len(texts[:_CHECKED]))}"
        raise UserError(what, str(path), "give SMILES, one a line, or a table with a column 'smiles'")
    molecules += [text for text in texts[_CHECKED:] if try_parse(text)]
    if missing := len(texts) - len(molecules):
        Progress().say(f"{path}: {missing:,} of {number_of('line', len(texts))} without a molecule, left out")
    return molecules


def _texts(path: Path) -> Iterator[str]:
    """What should be a molecule on each line; "" on one with more or fewer fields than the header."""
    table = named_columns(path)
    place = table.place(_SMILES)
    if place is None:
        return (re.split(r"[\s,;]", line.strip(), maxsplit=1)[0] for line in lines_of(path))
    return (fields[place].strip() if len(fields) == len(table.header) else "" for _, fields in table.records)
