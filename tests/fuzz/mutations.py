"""Damage to files: bytes, as by a power cut or a bad copy, and values, as by people and programs."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**30, -(10**30), 2**63, 0.5, -0.5, 1e308, -1e308, 5e-324),
    *("", "3", "-1", "true", "x" * 5000, "\0", "\x1b[2J", "[red]", "a\nb", "../../etc/passwd", "--all", "\u202e", "é"),
    *([], {}, [[]], [None], {"": None}, [1] * 50, {"a": {"b": {"c": []}}}, {"__class__": "x"}),
]
"""Values that replace any value."""
RAW = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b"[" * 100_000, b"{}", b"nul", b"0x10"),
    *(b'"', b"'", b",", b":", b"\\", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"#", b"=", b"1979-05-27"),
]
"""Bytes that replace any word."""
_WORD = re.compile(rb'"[^"\n]*"|[\w.+-]+')


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """Content with one to three defects."""
    kinds = [_torn(content), _words(content), _bytes(content)]
    tables = _tables(content)
    if tables:
        kinds += [_values(tables)] * 3
    return st.one_of(kinds)


def _tables(content: bytes) -> list[Any]:
    """The JSON values of a file, one in all or one per line; [] if it is not JSON."""
    for texts in ([content], content.splitlines()):
        try:
            return [json.loads(text) for text in texts]
        except ValueError:
            continue
    return []


@st.composite
def _torn(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut off, filled up with NULs, repeated, or in another encoding."""
    at = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["cut", "nul tail", "nul page", "twice", "utf-16", "latin-1", "crlf", "mark", "gone"]))
    return {
        "cut": content[:at],
        "nul tail": content[:at] + b"\0" * (len(content) - at + 512),
        "nul page": b"\0" * at + content[at:],
        "twice": content[:at] + content,
        "utf-16": content.decode("latin-1").encode("utf-16"),
        "latin-1": content[:at] + "é µ".encode("latin-1") + content[at:],
        "crlf": content.replace(b"\n", b"\r\n"),
        "mark": b"\xef\xbb\xbf" + content,
        "gone": b"",
    }[kind]


@st.composite
def _bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """One to three bytes changed."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        if made:
            made[draw(st.integers(0, len(made) - 1))] = draw(st.integers(0, 255))
    return bytes(made)


@st.composite
def _words(draw: st.DrawFn, content: bytes) -> bytes:
    """One or two words, names or values, replaced."""
    for _ in range(draw(st.integers(1, 2))):
        places = [match.span() for match in _WORD.finditer(content)]
        if places:
            begin, end = draw(st.sampled_from(places))
            put = draw(st.one_of(st.sampled_from(RAW), st.sampled_from(ODD).map(lambda odd: json.dumps(odd).encode())))
            content = content[:begin] + put + content[end:]
    return content


@st.composite
def _values(draw: st.DrawFn, tables: list[Any]) -> bytes:
    """One or two JSON values replaced, removed or renamed."""
    made = copy.deepcopy(tables)
    for _ in range(draw(st.integers(1, 2))):
        number = draw(st.integers(0, len(made) - 1))
        path = draw(st.sampled_from(list(_paths(made[number])) or [()]))
        if not path:
            made[number] = _odd(draw)
            continue
        holder = made[number]
        for key in path[:-1]:
            holder = holder[key]
        kind = draw(st.sampled_from(["other", "other", "gone", "renamed"]))
        if kind == "other":
            holder[path[-1]] = _odd(draw)
        else:
            value = holder.pop(path[-1])
            if kind == "renamed" and isinstance(holder, dict):
                holder[f"{path[-1]}s"] = value
    return b"\n".join(json.dumps(table).encode() for table in made) + (b"\n" if len(made) > 1 else b"")


def _odd(draw: st.DrawFn) -> Any:
    return copy.deepcopy(draw(st.sampled_from(ODD)))


def _paths(value: Any) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return [()]
    return [(), *((key, *path) for key, item in inside for path in _paths(item))]
