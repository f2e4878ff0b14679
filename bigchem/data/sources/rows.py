"""Rows from texts: the checks and repairs that all formats share."""

from collections.abc import Iterable

from bigchem.chemistry import NOTHING_REACTS, NotationError, canonical, dotted, one_compound
from bigchem.data.reading.lines import ENCODING_HINT, MAX_LINE
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.sources.sides import is_unicode, molecules, read_source, read_target
from bigchem.tasks import SPANS, Task

MAX_DOCUMENT = 1_000_000
"""Longest unlabelled document in characters: a book has about 500,000."""


def longest(source: SourceConfig) -> int:
    """Maximum characters in a line of this source."""
    return MAX_DOCUMENT if source.format == "text_lines" or set(source.columns) == {"text"} else MAX_LINE


def checked_fields(record: Record, count: int, limit: int = MAX_LINE) -> tuple[str, ...]:
    """The record's fields. RowError unless there are `count` of them, each valid text of at most `limit` characters."""
    check_texts(record.fields, limit)
    if len(record.fields) != count:
        raise RowError("wrong number of columns")
    return record.fields


def check_texts(texts: Iterable[str], limit: int = MAX_LINE) -> None:
    """RowError for a text of more than `limit` characters, with a NUL byte, or not in UTF-8."""
    for text in texts:
        if len(text) > limit:
            raise RowError(f"longer than {limit} characters")
        if "\0" in text:
            raise RowError("NUL byte: no text, or UTF-16, which `encoding` names")
        if not is_unicode(text):
            raise RowError(f"not valid Unicode: {ENCODING_HINT}")


def make_row(
    task: Task, source: str, target: str, *, selfies: bool = False, fields: tuple[tuple[str, str], ...] = ()
) -> Row:
    """A row of a task, with its molecules, its texts read by their domains. selfies: texts that may be SMILES or
    SELFIES are SELFIES. fields: what the task's prompts take from other columns.

    RowError for a text that is not valid in its domain, for text that is not Unicode (a file in another encoding, or
    surrogates in JSON), and for a product that is among the reactants.
    """
    sides = [read_source(task, source, selfies=selfies), read_target(task, target, selfies=selfies)]
    left, right = (side.text for side in sides)
    domains = (task.source_domain, task.target_domain)
    if set(domains) == {"chemistry", "reactants"} and _is_among(
        *((right, left) if domains[1] == "chemistry" else (left, right))
    ):
        raise RowError(NOTHING_REACTS)
    repairs = tuple(dict.fromkeys(repair for side in sides for repair in side.repairs))
    return Row(task.name, left, right, molecules(task, left, right), repairs, fields=fields)


def smiles_span(smiles: str, *, names: bool = False, selfies: bool = False) -> Row:
    """The unlabelled row of a molecule. names: a name may follow the SMILES. selfies: as in make_row. RowError if it is
    not SMILES."""
    span = read_source(SPANS["smiles_spans"], smiles, names=names, selfies=selfies)
    return Row("smiles_spans", span.text, "", one_compound(span.text), span.repairs)


def text_spans(document: str, limit: int) -> list[Row]:
    """The unlabelled rows of a document, cut at spaces into pieces of at most `limit` characters.

    RowError for a longer word: something without spaces is not text, and half a word teaches nothing.
    """
    text = document.strip()
    if not text:
        raise RowError("empty text")
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    rows, start = [], 0
    while len(text) - start > limit:
        end = next((i for i in range(start + limit, start, -1) if text[i].isspace()), None)
        if end is None:
            raise RowError(f"a word of more than {limit} characters")
        rows.append(Row("text_spans", text[start:end].rstrip(), ""))
        start = end + 1
        while text[start].isspace():
            start += 1
    return [*rows, Row("text_spans", text[start:], "")]


def _is_among(product: str, reactants: str) -> bool:
    compounds = reactants.split(".")
    if product in compounds:
        return True
    try:
        return canonical(dotted(product)) in [canonical(dotted(compound)) for compound in compounds]
    except NotationError:  # a ring bond across a dot, which RDKit reads only as a whole
        return False
