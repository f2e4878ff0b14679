"""The class of each reaction, from a table such as USPTO-50k's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.chemistry import NotationError, sections
from bigchem.evaluate.metrics.reactions import canonical
from bigchem.evaluate.named_columns import named_columns
from bigchem.tasks import Task

_CLASS = ("class", "reaction_class", "rxn_class", "reaction_type", "category")
_REACTION = ("reactants>reagents>production", "reaction", "rxn_smiles", "reaction_smiles", "rxn")


def classes_of(file: Path, task: Task, sources: Sequence[str], references: Sequence[str]) -> list[str]:
    """The class of each example of a task between reactants and product, matched by canonical molecules; "" if the
    table lacks it.

    file: CSV or TSV, plain or compressed, with a column of classes and one of reactions
    (`reactants>reagents>product`). If the reactants are not in the table, the product decides, provided that all its
    rows have one class. UserError for other tasks, a table without these columns, or one without any of the examples.
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
    table = named_columns(file)
    classes, reactions = map(table.place, (_CLASS, _REACTION))
    if classes is None or reactions is None:
        what, known = ("classes", _CLASS) if classes is None else ("reactions", _REACTION)
        raise UserError(f"no column of {what}: the header is {table.header}", f"{file}:1", f"one of {', '.join(known)}")
    for number, fields in table.records:
        if len(fields) != len(table.header):
            what = f"{len(fields)} fields, the header has {len(table.header)}"
            raise UserError(what, f"{file}:{number}", "does a text contain the separator? put it in quotes")
        try:
            reactants, _, product = sections(fields[reactions])
        except NotationError:
            what = f"not a reaction: {fields[reactions][:60]!r}"
            raise UserError(what, f"{file}:{number}", "write reactants>reagents>product") from None
        yield fields[classes].strip(), reactants, product
