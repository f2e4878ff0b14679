"""JSON lines and JSON arrays: the text of each record, and values under nested keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from bigchem.base.errors import UserError
from bigchem.data.reading.lines import MAX_LINE, lines_of, text_chunks

MISSING = object()
"""What `lookup` returns for a missing key."""


class DuplicateKeyError(ValueError):
    """One object has a key twice."""


def json_texts(path: str, limit: int = MAX_LINE, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, text) of each record: each non-blank line, or each element if the file is an array.

    Lines are not parsed. UserError for an array that is not JSON or has an element of more than `limit` characters,
    since nothing after that point can be read.
    """
    chunks = text_chunks(path, encoding)
    head = next(chunks, "")
    whole = chain([head], chunks)
    if head.lstrip().startswith("["):
        yield from _elements(path, whole, limit)
        return
    for number, line in enumerate(lines_of(whole, limit), start=1):
        if line and not line.isspace():
            yield number, line


def parse(text: str) -> Any:
    """The value of a JSON text. DuplicateKeyError where one object has a key twice: json.loads would drop a value."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise DuplicateKeyError(
            f"the key {next(name for name in table if names.count(name) > 1)[:40]!r} twice in one object"
        )
    return table


def lookup(entry: Any, key: str) -> Any:
    """The value under a key. If no key is called `a.b`, that is b inside a; list elements go by number. MISSING if
    there is none."""
    if isinstance(entry, dict) and key in entry:
        return entry[key]
    for part in key.split("."):
        if isinstance(entry, dict) and part in entry:
            entry = entry[part]
        elif isinstance(entry, list) and part.isdecimal() and int(part) < len(entry):
            entry = entry[int(part)]
        else:
            return MISSING
    return entry


def _elements(path: str, chunks: Iterator[str], limit: int) -> Iterator[tuple[int, str]]:
    """(line, text) of the elements of an array."""
    text = _Buffer(chunks)
    decode = json.JSONDecoder().raw_decode
    text.skip("[")
    closed = text.skip("]")
    while not closed:
        end = None
        while end is None:
            try:
                end = decode(text.buffered, text.at)[1]
                if end == len(text.buffered) and text.more():  # a number may continue in the next chunk
                    end = None
            except (ValueError, RecursionError) as error:
                if len(text.buffered) - text.at > limit or not text.more():
                    raise _broken(path, text, error, limit) from None
        yield text.line, text.taken(end)
        closed = text.skip("]")
        if not closed and not text.skip(","):
            raise _broken(path, text, ValueError("expected ',' or ']'"), limit)
    if not text.ended():
        raise UserError("text after the end of the array", f"{path}:{text.line}", "one array per file, or JSON lines")


def _broken(path: str, text: _Buffer, error: Exception, limit: int) -> UserError:
    what = f"not JSON: {str(error).split(': line')[0]}" if isinstance(error, ValueError) else "JSON nested too deeply"
    if len(text.buffered) - text.at > limit:
        what += f", or an element of more than {limit:,} characters"
    return UserError(what, f"{path}:{text.line}", "an array of objects, [{...}, {...}], or one object per line")


class _Buffer:
    """A text that is read in chunks. at: place of the next character in `buffered`. line: its line, from 1."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.buffered, self.at, self.line = "", 0, 1

    def more(self) -> bool:
        """Reads another chunk; whether there was one."""
        chunk = next(self._chunks, "")
        self.buffered, self.at = self.buffered[self.at :] + chunk, 0
        return bool(chunk)

    def taken(self, end: int) -> str:
        """Consumes and returns the text up to `end`."""
        part = self.buffered[self.at : end]
        self.line += part.count("\n")
        self.at = end
        return part

    def skip(self, sign: str) -> bool:
        """Skips white space, and the sign if it comes next; whether it does."""
        self._skip_space()
        there = self.buffered.startswith(sign, self.at)
        if there:
            self.at += len(sign)
            self._skip_space()
        return there

    def ended(self) -> bool:
        """Whether nothing but white space is left."""
        self._skip_space()
        return self.at == len(self.buffered)

    def _skip_space(self) -> None:
        while True:
            start = self.at
            while self.at < len(self.buffered) and self.buffered[self.at] in " \t\r\n":
                self.at += 1
            self.line += self.buffered.count("\n", start, self.at)
            if self.at < len(self.buffered) or not self.more():
                return
