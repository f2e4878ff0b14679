"""The split of each row: its source's, its split column's, or one drawn by a keyed hash.

The hash is of what must stay together: a row's texts, its molecule, its scaffold, its file, or the value of a column.
It depends on nothing else, so that other rows, their order and other fractions of training rows move no row. A larger
test_fraction only adds test rows.
"""

import hashlib
from collections import Counter
from pathlib import PurePath

from bigchem.base.errors import UserError
from bigchem.base.toml import quoted
from bigchem.chemistry import NotationError, dotted, parse
from bigchem.data.build.leakage import identities
from bigchem.data.sources import read_rows
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.tasks import Tasks

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Splits by the values that datasets write in a split column, in lower case."""
_LISTED = 10


class UnknownSplitError(RowError):
    """A value of a split column that names no split."""

    def __init__(self, value: str) -> None:
        super().__init__(f"unknown split {value[:40]!r}: map it in `split_names`")
        self.value = value


def rows_by_split(record: Record, source: SourceConfig, tasks: Tasks) -> list[tuple[Row, str]]:
    """The rows of a record with their splits; other spellings are among the training rows only.

    Empty if the source leaves the record out. RowError if it cannot be parsed, or if its split cannot be told.
    """
    found = ((row, split_of(row, record.file, source)) for row in read_rows(record, source, tasks))
    return [(row, split) for row, split in found if split == "train" or (split and row.question is None)]


def split_of(row: Row, file: str, source: SourceConfig) -> str:
    """The split of a row of a file; "" if the source leaves it out. RowError if it cannot be told."""
    if source.split is not None:
        return source.split
    if source.split_column is not None:
        value = row.group or ""
        found = source.split_names.get(value, NAMES.get(value.strip().lower()))
        if found is None:
            raise UnknownSplitError(value)
        return found
    at = position(_group(row, file, source), source.split_seed)
    if at < source.test_fraction:
        return "test"
    return "valid" if at < source.test_fraction + source.valid_fraction else "train"


def position(group: str, seed: int) -> float:
    """Where a group falls in [0, 1), uniformly: test rows are at the start, then valid rows."""
    digest = hashlib.blake2b(
        group.encode("utf-8", "surrogatepass"), digest_size=7, key=b"bigchem split", salt=seed.to_bytes(16)
    ).digest()
    return int.from_bytes(digest) / 2**56


def scaffold(molecule: str) -> str:
    """The Bemis-Murcko scaffold of a molecule in bigchem's notation, without stereochemistry; "" without a ring.
    NotationError if RDKit cannot read it."""
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    return str(MurckoScaffoldSmiles(mol=parse(dotted(molecule))))


def described(source: SourceConfig) -> str:
    """How a source's rows are split, for a report."""
    if source.split is not None:
        return source.split
    return f"column {source.split_column}" if source.split_column is not None else f"by {source.split_by}"


def may_train(source: SourceConfig) -> bool:
    """Whether a source can have training rows."""
    return source.split in ("train", None) and source.valid_fraction + source.test_fraction < 1


def shares(source: SourceConfig) -> dict[str, float]:
    """The share of rows that each split gets; none if the source does not divide its rows."""
    test, valid = source.test_fraction, source.valid_fraction
    if not (test or valid):
        return {}
    return {"test": test, "valid": valid, "train": 1 - test - valid if may_train(source) else 0.0}


def refuse_unknown(values: Counter[str], source: SourceConfig, records: list[Record]) -> None:
    """UserError, with the values and their counts, if a split column has some that name no split."""
    if not values:
        return
    listed = ", ".join(f"{quoted(value)} ({count:,})" for value, count in values.most_common(_LISTED))
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    each = ", ".join(f"{quoted(value)} = SPLIT" for value in list(values)[:3])
    raise UserError(
        f"column '{source.split_column}' has values that name no split: {listed}{more}",
        f"{records[0].file}, records {records[0].line:,} to {records[-1].line:,}",
        f"map each: split_names = {{ {each} }}, or to '' to leave such rows out",
    )


def refuse_empty(rows: Counter[str], source: SourceConfig, where: str) -> None:
    """UserError, with the remedy, if no row came into a split that a source asks for."""
    total = rows.total()
    for split, share in shares(source).items():
        if share > 0 and not rows[split]:
            larger = f"{split}_fraction = {min(0.5, 3 / total):.1g} expects {round(total * min(0.5, 3 / total))}"
            hint = f"{larger} of {total:,}; " if split != "train" and share * total < 3 else ""
            by = "" if source.split_by == "random" else "; or split_by = 'random', in which no group is large"
            asked = f"{total:,} rows split {described(source)}, a share of {share:.2g} was asked for"
            raise UserError(
                f"split '{split}' is empty: {asked}",
                where,
                f"{hint}another draw: split_seed = {source.split_seed + 1}{by}",
            )


def _group(row: Row, file: str, source: SourceConfig) -> str:
    """What stays together, as text."""
    if source.split_by == "random":  # both directions of a pair stay together
        return "\x1f".join(sorted((row.question or row.source, row.target)))
    if source.split_by == "file":
        return PurePath(file).name
    if source.split_by in ("molecule", "scaffold"):
        return _molecule(row, source.split_by)
    return row.group or ""


def _molecule(row: Row, kind: str) -> str:
    """The row's scaffold, or its molecules without stereochemistry if it has no ring."""
    if row.molecule is None:
        raise RowError(f"split_by = '{kind}', but task '{row.task}' has no molecule")
    if kind == "scaffold":
        try:
            if found := scaffold(row.molecule):
                return found
        except NotationError as error:
            raise RowError(str(error)) from None
    return ".".join(sorted({identity.skeleton for identity in identities(row.molecule)}))
