"""Files of predictions: tables and JSON, with one prediction per example or the k best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bigchem.base.errors import UserError, nearest
from bigchem.base.progress import Progress
from bigchem.chemistry import STRIP, STRIPPED
from bigchem.data.reading.delimited import Layout, Quoting, table_records
from bigchem.data.reading.json_records import MISSING, DuplicateKeyError, json_texts, lookup, parse
from bigchem.data.reading.lines import check_encoding, open_text
from bigchem.data.reading.opening import content_name
from bigchem.data.sources.sides import is_unicode
from bigchem.evaluate.prediction_files.cells import null_as_empty, read_list, read_numbers, resembles_list
from bigchem.evaluate.prediction_files.columns import COLUMNS, EXTRA, NUMBERS, ROLES, positions
from bigchem.evaluate.prediction_files.opennmt import read_parallel

_SEPARATORS = {",": "','", ";": "';'", "\t": "tabs"}
_LINE = 10_000_000
"""Longest record, in characters."""
_FORMATS = ".txt or .tsv (MolT5's table), .csv, .jsonl or .json, each also .gz, .bz2, .xz, .zst or .zip"
_JSON_HINT = 'write {"source": "...", "target": "...", "predictions": ["best", ...]}, or name the keys by --column'


class Examples(NamedTuple):
    """Contents of a file. references: one or several per example, any of which is right. predictions: the k best, never
    an empty list. keys: from the named key column. counts: number of each kind of repair. label_log_probabilities: of
    the task's labels, in their order, as many in every example; None without such a column. losses: of the target its
    summed cross-entropy, in nats, and its number of tokens; None without the column LOSS_AND_TOKENS."""

    sources: list[str]
    references: list[list[str]]
    predictions: list[list[str]]
    keys: list[str] | None
    counts: dict[str, int]
    label_log_probabilities: list[list[float]] | None = None
    losses: list[list[float]] | None = None

    def single(self, where: str) -> list[str]:
        """The reference of each example; UserError if any has several."""
        number = next((number for number, several in enumerate(self.references, 1) if len(several) > 1), None)
        if number is not None:
            raise UserError(f"example {number} has several targets", where, "keep the one to score against")
        return [reference for (reference,) in self.references]


@dataclass(frozen=True)
class ReadAs:
    """How to read a file; None: detect.

    columns: names by role, one of ROLES; in that of prediction a * stands for the numbers of the k
    best; in JSON `a.b` is b inside a. separator: between candidates in one column. encoding, quoting: as in
    SourceConfig. strip: what to remove around a text, from chemistry.STRIP. sources, references: files parallel to a
    file that has only predictions, see opennmt.read_parallel. labels: the task's, which are never nulls, as `none` or
    `NA` would be.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    encoding: str | None = None
    quoting: Quoting | None = None
    strip: frozenset[str] = STRIPPED
    sources: Path | None = None
    references: Path | None = None
    labels: frozenset[str] = frozenset()

    @staticmethod
    def of(
        columns: Sequence[str],
        separator: str | None,
        encoding: str | None,
        quoting: str | None,
        strip: str | None = None,
        sources: Path | None = None,
        references: Path | None = None,
    ) -> ReadAs:
        """From command-line options; columns: ROLE=NAME each. UserError for invalid ones."""
        named = dict(one.partition("=")[::2] for one in columns)
        for role, name in named.items():
            if role not in ROLES:
                raise UserError(f"unknown role '{role}'", "--column", nearest(role, list(ROLES)))
            if not name:
                raise UserError(f"no name for '{role}'", "--column", f"write --column {role}=NAME")
        if quoting is not None and quoting not in get_args(Quoting):
            raise UserError(f"unknown quoting '{quoting}'", "--quoting", f"one of: {', '.join(get_args(Quoting))}")
        try:
            encoding = None if encoding is None else check_encoding(encoding)
        except ValueError as error:
            raise UserError(str(error), "--encoding") from None
        return ReadAs(named, separator, encoding, quoting, _strip(strip), sources, references)  # type: ignore[arg-type]


AS_IT_LOOKS = ReadAs()
"""By the usual names, and by the contents of the file."""


def read_examples(path: str | Path, how: ReadAs = AS_IT_LOOKS) -> Examples:
    """The examples of a file of predictions; the format follows from its name, see docs/evaluation.md.

    A null or empty prediction becomes the empty string, which is wrong, and is counted. UserError with file and line
    for what cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        what = "a folder, not a file" if file.is_dir() else "no such file"
        raise UserError(what, str(file), f"give a file of predictions: {_FORMATS}")
    kind = Path(content_name(str(file))).suffix.lower()
    if how.sources is not None or how.references is not None:
        rows = list(_parallel(file, how))
    elif kind in (".txt", ".tsv", ".tab"):
        rows = list(_table(str(file), Layout("\t", quoting=how.quoting), how))
    elif kind == ".csv":
        rows = list(_table(str(file), Layout(",", quoting=how.quoting), how))
    elif kind in (".jsonl", ".ndjson", ".json"):
        rows = list(_objects(str(file), how))
    else:
        raise UserError(f"unknown kind of file '{kind}'", str(file), f"known: {_FORMATS}")
    if not rows:
        raise UserError("no predictions", str(file))
    counts = {
        f"null or empty {side}{'' if count == 1 else 's'}, {result}": count
        for side, result, count in (
            ("prediction", "counted as wrong", sum(row.predictions.count("") for row in rows)),
            ("reference", "left out", sum(row.nulls for row in rows)),
        )
        if count
    }
    texts = (text for row in rows for text in (*row.references, *row.predictions))
    if unread := sum(map(resembles_list, texts)):
        counts[
            f"text{'' if unread == 1 else 's'} like lists that do not parse (nested, cut off, `...`), scored as written"
        ] = unread
    keys = [row.key for row in rows if row.key is not None]
    return Examples(
        [row.source for row in rows],
        [row.references for row in rows],
        [row.predictions for row in rows],
        keys or None,
        counts,
        *(_table_of_numbers([row.numbers.get(name) for row in rows], name, str(file)) for name in NUMBERS),
    )


def _table_of_numbers(rows: list[list[float] | None], name: str, where: str) -> list[list[float]] | None:
    """UserError unless every example has as many numbers as the others, or none has any. name: the column's."""
    found = [row for row in rows if row is not None]
    if len(found) not in (0, len(rows)) or len(set(map(len, found))) > 1:
        other = next(number for number, row in enumerate(rows, 1) if (row and len(row)) != (rows[0] and len(rows[0])))
        what = f"example {other} has {len(rows[other - 1] or ())} {name}, the first {len(rows[0] or ())}"
        raise UserError(what, where, f"write {NUMBERS[name]}, in every example")
    return found or None


def _parallel(file: Path, how: ReadAs) -> Iterator[_Row]:
    if how.sources is None or how.references is None:
        missing = "--sources" if how.sources is None else "--references"
        raise UserError("--sources and --references go together", missing, f"add {missing} FILE, line by line")
    found = read_parallel(file, how.sources, how.references, _LINE, how.encoding, how.separator, how.labels)
    for number, (source, reference, predictions) in enumerate(zip(*found, strict=True), 1):
        for text in (source, reference, *predictions):
            _checked(text, f"{file}, example {number}")
        yield _row(source, _listed(reference, how), predictions, None, f"{how.references}:{number}", how)


def _strip(text: str | None) -> frozenset[str]:
    """From `special,tags`, `all` or `none`; None: STRIPPED."""
    if text is None:
        return STRIPPED
    words = {word.strip() for word in text.split(",")}
    for word in words - {*STRIP, "all", "none"}:
        raise UserError(f"unknown value '{word}'", "--strip", nearest(word, [*STRIP, "all", "none"]))
    return frozenset(STRIP) if "all" in words else frozenset(words - {"none"})


class _Row(NamedTuple):
    source: str
    references: list[str]
    predictions: list[str]
    key: str | None
    nulls: int
    """References that are left out."""
    numbers: dict[str, list[float]]
    """By the name of their column, one of NUMBERS."""


def _row(
    source: str,
    references: list[str],
    predictions: list[str],
    key: str | None,
    where: str,
    how: ReadAs,
    numbers: Sequence[Any] = (),
) -> _Row:
    """With nulls among the predictions as empty strings. numbers: the fields NUMBERS; None: absent. UserError if all
    references are null or empty, or if a field is no list of numbers."""
    known = [text for text in references if null_as_empty(text, how.labels)]
    if not known:
        what = f"the target is {references[0]!r}" if references and references[0] else "the target is null or empty"
        raise UserError(what, where, "remove the example, or write its target: no prediction of it can be scored")
    found = {}
    for name, value in zip(NUMBERS, numbers, strict=False):
        if value is not None:
            if (read := read_numbers(value)) is None:
                raise UserError(f"{name} is no list of finite numbers", where, "write it as [-0.1, -2.3]")
            found[name] = read
    ranked = [null_as_empty(text, how.labels) for text in predictions] or [""]
    return _Row(source, known, ranked, key, len(references) - len(known), found)


def _checked(text: str, where: str) -> str:
    if len(text) > _LINE:
        raise UserError(f"longer than {_LINE:,} characters", where)
    if not is_unicode(text):
        raise UserError("not UTF-8", where, "name the encoding, such as --encoding latin-1, or write it as UTF-8")
    return text


def _table(path: str, layout: Layout, how: ReadAs) -> Iterator[_Row]:
    """Rows of a table whose first line names the columns."""
    lines = open_text(path, _LINE, how.encoding)
    first = next((line for line in lines if line and not line.isspace()), "")
    layout = _separated(layout, _checked(first, f"{path}:1"), path)
    records = table_records(open_text(path, _LINE, how.encoding), layout, _LINE, path)
    _, header = next(records, (1, [""]))
    source, target, ranked, (key, *numbers) = positions(header, how.columns, f"{path}:1")
    for number, fields in records:
        where = f"{path}:{number}"
        for text in fields:
            _checked(text, where)
        if len(fields) != len(header):
            raise _wrong_width(fields, header, where)
        predictions = _ranked([fields[place] for place in ranked], how)
        references = [text for place in target for text in _listed(fields[place], how)]
        named, *listed = (None if place is None else fields[place] for place in (key, *numbers))
        yield _row(fields[source], references, predictions, named, where, how, listed)


def _separated(layout: Layout, header: str, path: str) -> Layout:
    """The layout with the separator that the header shows, if it has none of the usual one for the file's name."""
    if layout.separator in header:
        return layout
    found = next((separator for separator in _SEPARATORS if separator in header), None)
    if found is None:
        return layout
    usual, seen = _SEPARATORS[layout.separator], _SEPARATORS[found]
    Progress().say(f"{path}: fields are separated by {seen}, not {usual}, as its header shows")
    return Layout(found, quoting=layout.quoting if found == "\t" else layout.quoting or "standard")


def _wrong_width(fields: list[str], header: list[str], where: str) -> UserError:
    if len(fields) == 1 and '"' in fields[0]:
        hint = "set --quoting none if quotes are ordinary characters"
        return UserError("not CSV: a quote is not closed, or stands inside a field", where, hint)
    hint = "does a text contain the separator? set --quoting, or write the file as .jsonl"
    return UserError(f"{len(fields)} fields, the header has {len(header)}", where, hint)


def _ranked(cells: list[str], how: ReadAs) -> list[str]:
    """The candidates in an example's cells; empty ones at the end of several, or of a split cell, are padding."""
    if how.separator is not None and how.separator != "none":
        found = [candidate.strip() for cell in cells for candidate in cell.split(how.separator)]
    elif len(cells) == 1:
        return _listed(cells[0], how)
    else:
        found = [candidate for cell in cells for candidate in _listed(cell, how)]
    while len(found) > 1 and not null_as_empty(found[-1], how.labels):
        found.pop()
    return found


def _listed(text: str, how: ReadAs) -> list[str]:
    """The texts of a list in a cell, or the cell."""
    found = read_list(text, how.labels)
    return [text] if found is None else found


def _objects(path: str, how: ReadAs) -> Iterator[_Row]:
    for number, text in json_texts(path, _LINE, how.encoding):
        where = f"{path}:{number}"
        try:
            entry = parse(_checked(text, where))
        except DuplicateKeyError as error:
            raise UserError(str(error), where, "keep one of the two") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where, _JSON_HINT) from None
        if not isinstance(entry, dict):
            raise UserError("not a JSON object", where, _JSON_HINT)
        yield _entry(entry, how, where)


def _entry(entry: dict[str, Any], how: ReadAs, where: str) -> _Row:
    if "prediction" in entry and "predictions" in entry and "prediction" not in how.columns:
        raise UserError("'prediction' or 'predictions'?", where, "say which: --column prediction=NAME")
    source, target, ranked = (_value(entry, role, how) for role in COLUMNS)
    references = _listed(target, how) if isinstance(target, str) else target
    if not isinstance(source, str) or not _texts(references) or target == []:
        raise UserError("'source' must be a string, and 'target' a string or a list of strings", where, _JSON_HINT)
    if isinstance(ranked, str):
        ranked = _ranked([ranked], how)
    elif ranked is None:
        ranked = [""]
    if not isinstance(ranked, list) or not all(text is None or isinstance(text, str) for text in ranked):
        what = "'predictions' must be a list of strings, or 'prediction' a string; null for a missing one"
        raise UserError(what, where, _JSON_HINT)
    extra = {role: lookup(entry, how.columns[role]) if role in how.columns else None for role in EXTRA}
    for role, value in extra.items():
        if value is MISSING:
            raise UserError(f"no '{how.columns[role]}'", where, f"there are: {', '.join(entry)[:60]}")
    key = extra["key"]
    numbers = [entry.get(name) if extra[name] is None else extra[name] for name in NUMBERS]
    for text in (source, *references, *filter(None, ranked)):
        _checked(text, where)
    best = [text or "" for text in ranked]
    return _row(source, references, best, None if key is None else str(key), where, how, numbers)


def _value(entry: dict[str, Any], role: str, how: ReadAs) -> Any:
    """The value of a role; MISSING if absent."""
    names = (how.columns[role],) if role in how.columns else sorted(COLUMNS[role], key=_not_ours)
    found = (lookup(entry, name) for name in names)
    return next((value for value in found if value is not MISSING), MISSING)


def _not_ours(name: str) -> bool:
    """Sort key: bigchem's own JSON keys first, because its records keep the user's other fields."""
    return name not in ("source", "target", "predictions", "prediction")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
