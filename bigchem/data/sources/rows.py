"""Rows from texts: what is checked and mended in every one, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Iterable

from bigchem.chemistry import (
    NOTHING_REACTS,
    NotationError,
    Reading,
    atom_maps,
    canonical,
    dotted,
    one_compound,
    read,
    without_maps,
)
from bigchem.data.reading.lines import ENCODING_HINT, MAX_LINE
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.tasks import TRAINABLE

MAX_DOCUMENT = 1_000_000
"""Longest unlabelled document in characters: a book has about 500,000."""


def longest(source: SourceConfig) -> int:
    """The most characters that a line of this source may have."""
    return MAX_DOCUMENT if source.format == "text_lines" or set(source.columns) == {"text"} else MAX_LINE


def checked_fields(record: Record, count: int, most: int = MAX_LINE) -> tuple[str, ...]:
    """The record's fields. RowError if there are not `count` of them, if one has more than `most` characters, or if
    they are not text."""
    check_texts(record.fields, most)
    if len(record.fields) != count:
        raise RowError("wrong number of columns")
    return record.fields


def check_texts(texts: Iterable[str], most: int = MAX_LINE) -> None:
    """RowError for a text of more than `most` characters, with a NUL byte, or not in UTF-8."""
    for text in texts:
        if len(text) > most:
            raise RowError(f"longer than {most} characters")
        if "\0" in text:
            raise RowError("NUL byte: no text, or UTF-16, which `encoding` names")
        if not is_unicode(text):
            raise RowError(f"not valid Unicode: {ENCODING_HINT}")


def wanted(source: SourceConfig, rows: list[Row]) -> list[Row]:
    """Those of the rows whose task the source asks for."""
    return [row for row in rows if not source.tasks or row.task in source.tasks]


def make_row(task: str, source: str, target: str) -> Row:
    """A row of one of the five tasks, its molecule filled in, its texts read by bigchem.chemistry.

    Atom maps of reactions are removed: they would tell the product. RowError for a text that is not what its domain may
    look like, for text that is not Unicode (a file in another encoding, or surrogates in JSON), and for a product that
    stands among the reactants.
    """
    about = TRAINABLE[task]
    sides = [_read(source, about.source_domain), _read(target, about.target_domain)]
    if about.source_domain == about.target_domain == "chemistry":
        sides = [_unmapped(side) for side in sides]
        reactants, product = (side.text for side in (sides if task == "forward" else sides[::-1]))
        if _stands_among(product, reactants):
            raise RowError(NOTHING_REACTS)
    left, right = (side.text for side in sides)
    molecule = {"captioning": left, "retrosynthesis": left, "generation": right, "forward": right}.get(task)
    if molecule is not None and about.cross_domain:
        molecule = one_compound(molecule)
    repairs = tuple(dict.fromkeys(repair for side in sides for repair in side.repairs))
    return Row(task, left, right, molecule, repairs)


def smiles_span(smiles: str, names: bool = False) -> Row:
    """The unlabelled row of a molecule. names: a name may follow it. RowError if it is no SMILES."""
    span = _read(smiles, "chemistry", names)
    return Row("smiles_spans", span.text, "", one_compound(span.text), span.repairs)


def text_spans(document: str, most: int) -> list[Row]:
    """The unlabelled rows of a document, cut at spaces into pieces of at most `most` characters.

    RowError for a longer word: what has no spaces is no text, and half a word teaches nothing.
    """
    text = document.strip()
    if not text:
        raise RowError("empty text")
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    rows, start = [], 0
    while len(text) - start > most:
        end = next((i for i in range(start + most, start, -1) if text[i].isspace()), None)
        if end is None:
            raise RowError(f"a word of more than {most} characters")
        rows.append(Row("text_spans", text[start:end].rstrip(), ""))
        start = end + 1
        while text[start].isspace():
            start += 1
    return [*rows, Row("text_spans", text[start:], "")]


def is_unicode(text: str) -> bool:
    """Whether there is no lone surrogate in it, which is what bytes that are not UTF-8 are read as."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _read(text: str, domain: str, names: bool = False) -> Reading:
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    try:
        return read(text, domain, names=names)
    except NotationError as error:
        raise RowError(str(error)) from None


def _unmapped(side: Reading) -> Reading:
    if not atom_maps(side.text):
        return side
    return Reading(without_maps(side.text), (*side.repairs, "maps"))


def _stands_among(product: str, reactants: str) -> bool:
    compounds = reactants.split(".")
    if product in compounds:
        return True
    try:
        return canonical(dotted(product)) in [canonical(dotted(compound)) for compound in compounds]
    except NotationError:  # a ring bond across a dot, which RDKit reads only in one piece
        return False
