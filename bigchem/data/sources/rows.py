"""Rows from texts: the checks and repairs that all formats share."""

from __future__ import annotations

from collections.abc import Iterable

from bigchem.chemistry import (
    NOTHING_REACTS,
    NotationError,
    Reading,
    canonical,
    dotted,
    one_compound,
    read,
)
from bigchem.data.reading.lines import ENCODING_HINT, MAX_LINE
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.tasks import TRAINABLE

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


def wanted(source: SourceConfig, rows: list[Row]) -> list[Row]:
    """The rows whose task is among the source's."""
    return [row for row in rows if not source.tasks or row.task in source.tasks]


def make_row(task: str, source: str, target: str, selfies: bool = False) -> Row:
    """A row of one of the five tasks, with its molecule, its texts read by bigchem.chemistry. selfies: texts that may
    be SMILES or SELFIES are SELFIES.

    RowError for a text that is not valid in its domain, for text that is not Unicode (a file in another encoding, or
    surrogates in JSON), and for a product that is among the reactants.
    """
    about = TRAINABLE[task]
    sides = [
        _read(source, about.source_domain, selfies=selfies),
        _read(target, about.target_domain, selfies=selfies),
    ]
    if about.source_domain == about.target_domain == "chemistry":
        reactants, product = (side.text for side in (sides if task == "forward" else sides[::-1]))
        if _is_among(product, reactants):
            raise RowError(NOTHING_REACTS)
    left, right = (side.text for side in sides)
    molecule = {"captioning": left, "retrosynthesis": left, "generation": right, "forward": right}.get(task)
    if molecule is not None and about.cross_domain:
        molecule = one_compound(molecule)
    repairs = tuple(dict.fromkeys(repair for side in sides for repair in side.repairs))
    return Row(task, left, right, molecule, repairs)


def smiles_span(smiles: str, names: bool = False, selfies: bool = False) -> Row:
    """The unlabelled row of a molecule. names: a name may follow the SMILES. selfies: as in make_row. RowError if it is
    not SMILES."""
    span = _read(smiles, "chemistry", names, selfies)
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


def is_unicode(text: str) -> bool:
    """Whether it has no lone surrogate, as which bytes that are not UTF-8 are read."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _read(text: str, domain: str, names: bool = False, selfies: bool = False) -> Reading:
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    try:
        return read(text, domain, names=names, selfies=selfies)
    except NotationError as error:
        raise RowError(str(error)) from None


def _is_among(product: str, reactants: str) -> bool:
    compounds = reactants.split(".")
    if product in compounds:
        return True
    try:
        return canonical(dotted(product)) in [canonical(dotted(compound)) for compound in compounds]
    except NotationError:  # a ring bond across a dot, which RDKit reads only as a whole
        return False
