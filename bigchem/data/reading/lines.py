"""The text of a file or URL, and its lines."""

import codecs
from collections.abc import Iterator
from itertools import chain

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.data.reading.opening import byte_chunks

MAX_LINE = 100_000
"""Longest record in characters. The longest real rows have about 3,000; a longer line means the file is not text."""

ENCODING_HINT = "where the file is not UTF-8, set `encoding` (latin-1, cp1252, utf-16, ...)"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def check_encoding(name: str) -> str:
    """The name, if it is a text encoding's; otherwise ValueError."""
    try:
        "a".encode(name)
    except LookupError:
        raise ValueError(f"unknown encoding '{name}': utf-8, utf-16, latin-1, cp1252, ...") from None
    return name


def text_chunks(path: str, encoding: str | None = None) -> Iterator[str]:
    """The text of a file or URL in non-empty chunks, without a byte order mark.

    encoding: default UTF-8; invalid bytes become lone surrogates, and rows with them are refused. UserError for a
    UTF-16 or UTF-32 byte order mark, or what looks like UTF-16, if no encoding is given, and for bytes that are invalid
    in a given one.
    """
    chunks = byte_chunks(path)
    head = next(chunks, b"")
    found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if encoding is None and found is not None:
        raise _not_utf8(found, "by its byte order mark", path)
    if encoding is None and (found := _looks_like(head)) is not None:
        raise _not_utf8(found, "without a byte order mark, by its zero bytes", path)
    name = "utf-8" if encoding is None else encoding
    utf8 = codecs.lookup(name).name == "utf-8"
    decoder = codecs.getincrementaldecoder(name)("surrogateescape" if utf8 else "strict")
    first = True
    try:
        for chunk in chain([head], chunks, [None]):
            text = decoder.decode(b"", final=True) if chunk is None else decoder.decode(chunk)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False  # Excel writes one
            if text:
                yield text
    except UnicodeError as error:
        raise UserError(f"not {encoding}: {one_line(error)}", path, "set another `encoding`") from None


def unicode_of(path: str) -> str | None:
    """The encoding of a file that is UTF-16 or UTF-32 by its first bytes; else None."""
    head = next(byte_chunks(path), b"")
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), _looks_like(head))


def _not_utf8(found: str, why: str, path: str) -> UserError:
    hint = f"set encoding = '{found}', on the command line --encoding {found}"
    return UserError(f"not UTF-8 but {found.upper()}, {why}", path, hint)


def _looks_like(head: bytes) -> str | None:
    """UTF-16 if every other byte of the beginning is mostly zero, as in Latin script, and the others are not."""
    even, odd = head[:400:2], head[1:400:2]
    sparse = [bool(part) and 2 * part.count(0) > len(part) for part in (even, odd)]
    if sparse == [False, True] and 0 not in even:
        return "utf-16-le"
    return "utf-16-be" if sparse == [True, False] and 0 not in odd else None


def open_text(path: str, limit: int = MAX_LINE, encoding: str | None = None) -> Iterator[str]:
    """The lines of a file or URL without their line ends: text_chunks, then lines_of."""
    return lines_of(text_chunks(path, encoding), limit)


def lines_of(chunks: Iterator[str], limit: int) -> Iterator[str]:
    """The lines of a text that comes in chunks.

    Lines end at \\n or \\r\\n, or at \\r if the first chunk has \\r and no \\n; captions contain other characters at
    which str.splitlines would split. A line of more than `limit` characters is cut to at most `limit` + 2, which bounds
    memory.
    """
    head = next(chunks, "")
    end = "\r" if "\r" in head and "\n" not in head else "\n"
    rest = ""
    for chunk in chain([head], chunks):
        parts = chunk.split(end)
        if len(parts) == 1:
            rest = (rest + chunk)[: limit + 2]
            continue
        parts[0] = rest + parts[0]
        rest = parts.pop()[: limit + 2]
        if "\r" in chunk or "\r" in parts[0] or len(max(parts, key=len)) > limit:
            parts = [line[: limit + 2].rstrip("\r\n") for line in parts]
        yield from parts
    if rest:
        yield rest.rstrip("\r\n")
