"""The class of each reaction, from a table such as USPTO-50k's."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.chemistry import NotationError, sections
from bigchem.evaluate.metrics.reactions import canonical
from bigchem.tasks import Task

_CLASS = ("class", "reaction_class", "rxn_class", "reaction_type", "category")
_REACTION = ("reactants>reagents>production", "reaction", "rxn_smiles", "reaction_smiles", "rxn")


def classes_of(file: Path, task: Task, sources: Sequence[str], references: Sequence[str]) -> list[str]:
    """The class of each example of a task between reactants and product, matched by canonical molecules; "" if the
    table lacks it.

    file: CSV, plain or .gz, with a column of classes and one of reactions (`reactants>reagents>product`). If the
    reactants are not in the table, the product decides, provided that all its rows have one class. UserError for other
    tasks, a table without these columns, or one without any of the examples.
    """
    if {task.source_domain, task.target_domain} != {"reactants", "chemistry"}:
        raise UserError(f"needs a task between reactants and product, not {task.name}", "--classes")
    whole: dict[tuple[str, str], str] = {}
    by_product: dict[str, set[str]] = {}
    for name, reactants, product in _rows(file):
        made, start = _canonical(product), _canonical(reactants)
        if made:
            whole[made, start] = name
            by_product.setdefault(made, set()).add(name)
    found = []
    for source, reference in zip(sources, references, strict=True):
        product, reactants = (source, reference) if task.source_domain == "chemistry" else (reference, source)
        made = _canonical(product)
        classes = by_product.get(made, set())
        found.append(whole.get((made, _canonical(reactants)), next(iter(classes)) if len(classes) == 1 else ""))
    if not any(found):
        hint = "is this the table of the same split?"
        raise UserError(f"contains none of {number_of('example', len(found))}", str(file), hint)
    return found


def _canonical(smiles: str) -> str:
    names = canonical(smiles)
    return "" if names is None else names[0]


def _rows(file: Path) -> Iterator[tuple[str, str, str]]:
    """Class, reactants and product of each row."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = {name.strip().lower(): name for name in reader.fieldnames or []}
            columns = [next((names[n] for n in known if n in names), None) for known in (_CLASS, _REACTION)]
            if None in columns:
                what = f"no column of {'reactions' if columns[0] else 'classes'}: the header is {reader.fieldnames}"
                known = ", ".join(_REACTION if columns[0] else _CLASS)
                raise UserError(what, f"{file}:1", f"one of {known}")
            for row in reader:
                name, reaction = (row[column] or "" for column in columns if column is not None)
                try:
                    reactants, _, product = sections(reaction)
                except NotationError:
                    what = f"not a reaction: {reaction[:60]!r}"
                    raise UserError(what, f"{file}:{reader.line_num}", "write reactants>reagents>product") from None
                yield name.strip(), reactants, product
    except FileNotFoundError:
        raise UserError("no such file", str(file)) from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read: {error}", str(file), "give a CSV in UTF-8, plain or .gz") from None
