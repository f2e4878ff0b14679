"""Files of predictions, as people have them: tables and JSON, one prediction an example or the k best."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bigchem.base.errors import UserError, nearest
from bigchem.base.toml import quoted
from bigchem.chemistry import STRIP, STRIPPED
from bigchem.data.reading.delimited import Layout, Quoting, table_records
from bigchem.data.reading.json_records import MISSING, json_texts, lookup
from bigchem.data.reading.lines import check_encoding, open_text
from bigchem.data.reading.opening import without_compression
from bigchem.data.sources.rows import is_unicode
from bigchem.evaluate.prediction_files.opennmt import read_parallel

COLUMNS: dict[str, tuple[str, ...]] = {
    "source": ("SMILES", "description", "source", "original_smiles", "input", "src"),
    "target": ("ground truth", "target", "target_smiles", "references", "reference"),
    "prediction": ("output", "predictions", "prediction"),
}
"""What the column of each role may be called: MolT5's names, bigchem's, Chemformer's."""
ROLES = (*COLUMNS, "key")
_SERIES = ("prediction", "pred", "output", "candidate", "cand_precursor", "hypothesis", "beam")
"""Names of columns that are numbered for the k best: prediction_0, prediction_1, ..."""
_LINE = 10_000_000
"""Longest record in characters."""
_FORMATS = ".txt or .tsv (MolT5's table), .csv, .jsonl or .json, each also .gz, .bz2, .xz, .zst or .zip"
_JSON_HINT = 'write {"source": "...", "target": "...", "predictions": ["best", ...]}, or name the keys by --column'


class Examples(NamedTuple):
    """What a file holds. references: of each example, one or several that are right. predictions: the k best, never an
    empty list. keys: of the named key column. counts: of what was read in another way than it is written."""

    sources: list[str]
    references: list[list[str]]
    predictions: list[list[str]]
    keys: list[str] | None
    counts: dict[str, int]

    def single(self, where: str) -> list[str]:
        """The one reference of each example; UserError where there are several."""
        number = next((number for number, one in enumerate(self.references, 1) if len(one) > 1), None)
        if number is not None:
            raise UserError(f"example {number} has several targets", where, "leave the one to score against")
        return [one for (one,) in self.references]


@dataclass(frozen=True)
class ReadAs:
    """How a file is read, where it does not say itself.

    columns: names by role (source, target, prediction, key); in that of prediction a * stands for the numbers of the k
    best; in JSON `a.b` is b inside of a. separator: between the candidates in one column. encoding, quoting: as in
    SourceConfig. strip: what is taken off around a text, of chemistry.STRIP. sources, references: files whose lines
    belong to a file of predictions alone, see parallel.read_parallel.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    encoding: str | None = None
    quoting: Quoting | None = None
    strip: frozenset[str] = STRIPPED
    sources: Path | None = None
    references: Path | None = None

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
        """From the options of a command; columns: ROLE=NAME each. UserError for one that is none."""
        named = dict(one.partition("=")[::2] for one in columns)
        for role, name in named.items():
            if role not in ROLES:
                raise UserError(f"no role '{role}'", "--column", nearest(role, list(ROLES)))
            if not name:
                raise UserError(f"no name for '{role}'", "--column", f"write --column {role}=NAME")
        if quoting is not None and quoting not in get_args(Quoting):
            raise UserError(f"'{quoting}' is none", "--quoting", f"one of: {', '.join(get_args(Quoting))}")
        try:
            encoding = None if encoding is None else check_encoding(encoding)
        except ValueError as error:
            raise UserError(str(error), "--encoding") from None
        return ReadAs(named, separator, encoding, quoting, _strip(strip), sources, references)  # type: ignore[arg-type]


AS_IT_LOOKS = ReadAs()
"""By the names that are usual, and by what is in the file."""


def read_examples(path: str | Path, how: ReadAs = AS_IT_LOOKS) -> Examples:
    """The examples of a file of predictions, by its name: see the manual, docs/evaluation.md.

    A prediction that is null or empty is the empty string, which is wrong, and counted. UserError with file and line
    for what cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        what = "a folder, not a file" if file.is_dir() else "no such file"
        raise UserError(what, str(file), f"give a file of predictions: {_FORMATS}")
    kind = Path(without_compression(file.name)).suffix.lower()
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
    blank = sum(not any(row.predictions) for row in rows)
    what = "prediction that is null or empty, and counts as wrong"
    if blank != 1:
        what = "predictions that are null or empty, and count as wrong"
    counts = {what: blank} if blank else {}
    keys = [row.key for row in rows if row.key is not None]
    return Examples(
        [row.source for row in rows],
        [row.references for row in rows],
        [row.predictions for row in rows],
        keys or None,
        counts,
    )


def _parallel(file: Path, how: ReadAs) -> Iterator[_Row]:
    if how.sources is None or how.references is None:
        missing = "--sources" if how.sources is None else "--references"
        raise UserError("--sources and --references go together", missing, f"add {missing} FILE, line by line")
    found = read_parallel(file, how.sources, how.references, _LINE, how.encoding, how.separator)
    for number, (source, reference, predictions) in enumerate(zip(*found, strict=True), 1):
        for text in (source, reference, *predictions):
            _checked(text, f"{file}, example {number}")
        yield _Row(source, [reference], predictions, None)


def _strip(text: str | None) -> frozenset[str]:
    """From `special,tags`, `all` or `none`; None: STRIPPED."""
    if text is None:
        return STRIPPED
    words = {word.strip() for word in text.split(",")}
    for word in words - {*STRIP, "all", "none"}:
        raise UserError(f"nothing is called '{word}'", "--strip", nearest(word, [*STRIP, "all", "none"]))
    return frozenset(STRIP) if "all" in words else frozenset(words - {"none"})


class _Row(NamedTuple):
    source: str
    references: list[str]
    predictions: list[str]
    key: str | None


def _checked(text: str, where: str) -> str:
    if len(text) > _LINE:
        raise UserError(f"longer than {_LINE:,} characters", where)
    if not is_unicode(text):
        raise UserError("not UTF-8", where, "name the encoding: --encoding latin-1, for one; or write it as UTF-8")
    return text


def _table(path: str, layout: Layout, how: ReadAs) -> Iterator[_Row]:
    """Rows of a table whose first line names the columns."""
    records = table_records(open_text(path, _LINE, how.encoding), layout, _LINE, path)
    _, header = next(records, (1, [""]))
    _checked(layout.separator.join(header), f"{path}:1")
    source, target, ranked, key = _places(header, how, f"{path}:1")
    for number, fields in records:
        where = f"{path}:{number}"
        for text in fields:
            _checked(text, where)
        if len(fields) != len(header):
            raise _wrong_width(fields, header, where)
        predictions = [text for place in ranked for text in _candidates(fields[place], how.separator)]
        while len(predictions) > 1 and not predictions[-1]:
            predictions.pop()
        references = [text for place in target for text in _listed(fields[place]) or [fields[place]]]
        yield _Row(fields[source], references, predictions or [""], None if key is None else fields[key])


def _wrong_width(fields: list[str], header: list[str], where: str) -> UserError:
    if len(fields) == 1 and '"' in fields[0]:
        hint = "set --quoting none where quotes are characters"
        return UserError("not CSV: a quote that is not closed, or stands inside of a field", where, hint)
    hint = "a text that holds the separator? set --quoting, or write the file as .jsonl"
    return UserError(f"{len(fields)} fields, the header has {len(header)}", where, hint)


def _places(header: list[str], how: ReadAs, where: str) -> tuple[int, list[int], list[int], int | None]:
    """Where source, references, predictions and key stand."""
    found = {role: _named(header, how.columns.get(role), role, where) for role in COLUMNS}
    if not found["prediction"] and "prediction" not in how.columns:
        found["prediction"] = next(filter(None, (_series(header, f"{name}_*") for name in _SERIES)), [])
    for role, places in found.items():
        if not places:
            names = [how.columns[role]] if role in how.columns else COLUMNS[role]
            hint = f"the header is {quoted(header, most=400)}; name the column: --column {role}=NAME"
            raise UserError(f"no column {' or '.join(map(repr, names))}", where, hint)
    key = how.columns.get("key")
    if key is not None and key not in header:
        raise UserError(f"no column '{key}'", where, f"the header is {quoted(header, most=400)}")
    (source, *_), target, ranked = found.values()
    return source, target, ranked, None if key is None else header.index(key)


def _named(header: list[str], name: str | None, role: str, where: str) -> list[int]:
    """The places of a named column, several for a * in it; without a name, of a usual one."""
    if name is not None and "*" in name:
        return _series(header, name)
    names = COLUMNS[role] if name is None else (name,)
    there = [one for one in names if one in header]
    if len(there) > 1 and role != "source":
        raise UserError(f"'{there[0]}' or '{there[1]}'?", where, f"say which is the {role}: --column {role}=NAME")
    return [header.index(one) for one in there[:1]]


def _series(header: list[str], name: str) -> list[int]:
    """The places of columns that differ in the number at the *, ascending, from 0 or 1 on without a gap."""
    pattern = re.compile(re.escape(name).replace(r"\*", r"(\d{1,4})").replace("_", "_?"))
    numbered = {int(match[1]): place for place, one in enumerate(header) if (match := pattern.fullmatch(one))}
    ordered = sorted(numbered)
    whole = bool(ordered) and ordered[0] <= 1 and ordered == list(range(ordered[0], ordered[0] + len(ordered)))
    return [numbered[number] for number in ordered] if whole else []


def _candidates(text: str, separator: str | None) -> list[str]:
    """The candidates in one cell."""
    if separator is not None and separator != "none":
        return [one.strip() for one in text.split(separator)]
    return _listed(text) or [text]


def _listed(text: str) -> list[str] | None:
    """The texts of a list as JSON or pandas write it into a cell; None for a cell that is none. No SMILES begins so."""
    if not text.startswith(("['", '["')) or not text.endswith("]"):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if found and all(isinstance(one, str) for one in found) else None


def _objects(path: str, how: ReadAs) -> Iterator[_Row]:
    for number, text in json_texts(path, _LINE, how.encoding):
        where = f"{path}:{number}"
        try:
            entry = json.loads(_checked(text, where))
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where, _JSON_HINT) from None
        if not isinstance(entry, dict):
            raise UserError("not a JSON object", where, _JSON_HINT)
        yield _entry(entry, how, where)


def _entry(entry: dict[str, Any], how: ReadAs, where: str) -> _Row:
    source, target, ranked = (_value(entry, role, how) for role in COLUMNS)
    references = [target] if isinstance(target, str) else target
    if not isinstance(source, str) or not _texts(references) or not references:
        raise UserError("'source' has to be a string, and 'target' one, or a list of them", where, _JSON_HINT)
    if isinstance(ranked, str):
        ranked = _candidates(ranked, how.separator) if how.separator else [ranked]
    elif ranked is None:
        ranked = [""]
    if not isinstance(ranked, list) or not all(one is None or isinstance(one, str) for one in ranked):
        what = "'predictions' has to be a list of strings, or 'prediction' a string; null where there is none"
        raise UserError(what, where, _JSON_HINT)
    key = lookup(entry, how.columns["key"]) if "key" in how.columns else None
    if key is MISSING:
        raise UserError(f"no '{how.columns['key']}'", where, f"there are: {', '.join(entry)[:60]}")
    row = _Row(source, references, [one or "" for one in ranked] or [""], None if key is None else str(key))
    for text in (row.source, *row.references, *row.predictions):
        _checked(text, where)
    return row


def _value(entry: dict[str, Any], role: str, how: ReadAs) -> Any:
    """What stands under the name of a role; MISSING where there is nothing."""
    names = (how.columns[role],) if role in how.columns else sorted(COLUMNS[role], key=_not_ours)
    found = (lookup(entry, name) for name in names)
    return next((value for value in found if value is not MISSING), MISSING)


def _not_ours(name: str) -> bool:
    """Of JSON keys, bigchem's own come first: a record keeps its other fields."""
    return name not in ("source", "target", "predictions", "prediction")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
