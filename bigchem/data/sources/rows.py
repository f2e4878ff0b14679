"""Rows from texts: what is checked and mended in every one, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Iterable

from bigchem.data.reading.lines import ENCODING_HINT, MAX_LINE
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig, dotted, one_compound
from bigchem.data.sources.molecules import parse
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
    """A row of one of the five tasks, its molecule filled in. Whitespace around the texts is dropped.

    In SMILES, doubled backslashes become one: the ChEBI-20 files were escaped once too often, and `\\\\` means nothing.
    RowError for an empty side and for text that is not Unicode: a file in another encoding, or surrogates in JSON.
    """
    source, source_repaired = _mended(source, TRAINABLE[task].source_domain)
    target, target_repaired = _mended(target, TRAINABLE[task].target_domain)
    molecule = {"captioning": source, "retrosynthesis": source, "generation": target, "forward": target}.get(task)
    if molecule is not None and TRAINABLE[task].cross_domain:
        molecule = one_compound(molecule)
    return Row(task, source, target, molecule, source_repaired or target_repaired)


def smiles_span(smiles: str) -> Row:
    """The unlabelled row of a molecule. RowError if RDKit cannot read it."""
    smiles, repaired = _mended(smiles, "chemistry")
    parse(dotted(smiles))
    return Row("smiles_spans", smiles, "", one_compound(smiles), repaired)


def text_spans(document: str, most: int) -> list[Row]:
    """The unlabelled rows of a document, cut at spaces into pieces of at most `most` characters.

    RowError for a longer word: what has no spaces is no text, and half a word teaches nothing.
    """
    text, _ = _mended(document, "text")
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


def _mended(text: str, domain: str) -> tuple[str, bool]:
    text = text.strip()
    if not text:
        raise RowError("empty text")
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    if domain == "text":
        return text, False
    if len(text.split(maxsplit=1)) > 1:
        raise RowError("a space in SMILES")  # RDKit would take what follows for a name
    return text.replace("\\\\", "\\"), "\\\\" in text
