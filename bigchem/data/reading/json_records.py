"""JSON lines and JSON arrays: the text of each record, and values under nested keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from bigchem.base.errors import UserError
from bigchem.data.reading.lines import MAX_LINE, lines_of, text_chunks

MISSING = object()
"""What `lookup` finds where there is nothing."""


def json_texts(path: str, most: int = MAX_LINE, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, text) of each record: of each line that is not blank, or of each element where the file is an array.

    Lines are not parsed. UserError for an array that is no JSON or has an element of more than `most` characters:
    what comes after it cannot be told.
    """
    chunks = text_chunks(path, encoding)
    head = next(chunks, "")
    whole = chain([head], chunks)
    if head.lstrip().startswith("["):
        yield from _elements(path, whole, most)
        return
    for number, line in enumerate(lines_of(whole, most), start=1):
        if line and not line.isspace():
            yield number, line


def lookup(entry: Any, key: str) -> Any:
    """The value under a key; under `a.b` where there is no such key the one under b in a, list elements by number.

    MISSING where there is none.
    """
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


def _elements(path: str, chunks: Iterator[str], most: int) -> Iterator[tuple[int, str]]:
    """(line, text) of the elements of an array."""
    text = _Buffer(chunks)
    decode = json.JSONDecoder().raw_decode
    text.skip("[")
    closed = text.skip("]")
    while not closed:
        end = None
        while end is None:
            try:
                end = decode(text.held, text.at)[1]
                if end == len(text.held) and text.more():  # a number may go on
                    end = None
            except (ValueError, RecursionError) as error:
                if len(text.held) - text.at > most or not text.more():
                    raise _broken(path, text, error, most) from None
        yield text.line, text.taken(end)
        closed = text.skip("]")
        if not closed and not text.skip(","):
            raise _broken(path, text, ValueError("expected ',' or ']'"), most)
    if not text.ended():
        raise UserError("text after the end of the array", f"{path}:{text.line}", "one array a file, or JSON lines")


def _broken(path: str, text: _Buffer, error: Exception, most: int) -> UserError:
    what = f"not JSON: {str(error).split(': line')[0]}" if isinstance(error, ValueError) else "JSON nested too deeply"
    if len(text.held) - text.at > most:
        what += f", or an element of more than {most:,} characters"
    return UserError(what, f"{path}:{text.line}", "an array of objects, [{...}, {...}], or one object a line")


class _Buffer:
    """Chunks of text, of which a part is held. line: of the first character at `at`, from 1."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.held, self.at, self.line = "", 0, 1

    def more(self) -> bool:
        """Holds another chunk; whether there was one."""
        chunk = next(self._chunks, "")
        self.held, self.at = self.held[self.at :] + chunk, 0
        return bool(chunk)

    def taken(self, end: int) -> str:
        """The text up to `end`, which is then behind."""
        part = self.held[self.at : end]
        self.line += part.count("\n")
        self.at = end
        return part

    def skip(self, sign: str) -> bool:
        """Goes behind white space, and behind the sign if it stands there; whether it does."""
        self._skip_space()
        there = self.held.startswith(sign, self.at)
        if there:
            self.at += len(sign)
            self._skip_space()
        return there

    def ended(self) -> bool:
        """Whether nothing but white space is left."""
        self._skip_space()
        return self.at == len(self.held)

    def _skip_space(self) -> None:
        while True:
            start = self.at
            while self.at < len(self.held) and self.held[self.at] in " \t\r\n":
                self.at += 1
            self.line += self.held.count("\n", start, self.at)
            if self.at < len(self.held) or not self.more():
                return
