"""Lists in one cell, of texts or numbers, as JSON, Python, pandas and numpy write them."""

import ast
import json
import math
import re
import warnings
from collections.abc import Collection
from typing import Any

from bigchem.chemistry import is_missing_word

_NULLS = ("None", "nan", "NaN", "null", "<NA>")
_STRING = r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\""""
_ITEM = re.compile(rf"np\.str_\(({_STRING})\)|({_STRING})|{'|'.join(_NULLS)}", re.DOTALL)
_GAP = re.compile(r"\s*,\s*|\s+")
_BEGINS = re.compile(rf"\s*(?:(?:(?:np|numpy)\.)?array\(\s*)?[\[(]+\s*(?:np\.str_\(|['\"]|(?:{'|'.join(_NULLS)})\b)")
_ARRAY = re.compile(r"(?:(?:np|numpy)\.)?array\(\s*(\[.*\])\s*(?:,\s*dtype=[\w.'<>|]+\s*)?\)", re.DOTALL)


def null_as_empty(text: str, labels: Collection[str] = ()) -> str:
    """The text; the empty string for white space and for what tables and programs write for a missing value, unless it
    is one of the labels."""
    null = text.isspace() or (is_missing_word(text) and text.strip() not in labels)
    return "" if null else text


def resembles_list(text: str) -> bool:
    """Whether a text begins as a list of strings does: one that `read_list` refuses is nested, cut off or abridged."""
    return _BEGINS.match(text) is not None


def read_list(text: str, labels: Collection[str] = ()) -> list[str] | None:
    """The texts of a list in a cell, "" for a null; None if any part of the cell is something else. labels: no nulls
    where they are in quotes.

    Read are ['a', "b"], ('a', 'b'), numpy's ['a' 'b'] over any number of lines, and array([...], dtype=object). No
    SMILES is one of these: `[` is followed by a quote, a null or `]`.
    """
    text = text.strip()
    array = _ARRAY.fullmatch(text)
    text = array[1] if array else text
    closing = {"[": "]", "(": ")"}.get(text[:1])
    if closing is None or len(text) < 2 or not text.endswith(closing):
        return None
    end = len(text) - 1
    at, commas, found = end - len(text[1:end].lstrip()), 0, list[str]()
    while at < end:
        item = _ITEM.match(text, at, end)
        string = None if item is None else _string(item[1] or item[2], labels)
        if item is None or string is None:
            return None
        found.append(string)
        gap = _GAP.match(text, item.end(), end)
        at = gap.end() if gap else item.end()
        if at < end and not gap:
            return None
        commas += gap is not None and "," in gap[0]
    if closing == ")" and commas < max(1, len(found) - 1):  # Python joins ('a' 'b'); ('a') is no tuple
        return None
    return found


def read_numbers(value: Any) -> list[float] | None:
    """The finite numbers of a list, or of its text such as `[-0.1, -2.3]` or numpy's `[-0.1 -2.3]`; None for anything
    else."""
    if isinstance(value, str):
        text = value.strip()
        value = text[1:-1].replace(",", " ").split() if text[:1] == "[" and text[-1:] == "]" else None
    if not isinstance(value, list) or not value or any(isinstance(item, bool) for item in value):
        return None
    try:
        found = [float(item) for item in value]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if all(map(math.isfinite, found)) else None


def _string(quoted: str | None, labels: Collection[str]) -> str | None:
    """The text of a quoted string, "" for a null; None for escapes that neither JSON nor Python knows."""
    if quoted is None:
        return ""
    if "\\" not in quoted:
        return null_as_empty(quoted[1:-1], labels)
    try:
        return str(json.loads(quoted, strict=False))  # only JSON spells a character as two surrogates
    except ValueError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a bond \C in a list written without doubling
            warnings.simplefilter("ignore", DeprecationWarning)
            return str(ast.literal_eval(quoted))
    except (ValueError, SyntaxError):
        return None
