"""Escapes for characters that T5 cannot spell or that its normalisation changes: ½ is `␛00bd`.

An escape is ESCAPE and four hexadecimal digits, so it needs no end mark. tokenizer.json does both directions: a
SentencePiece charsmap before T5's own escapes in one pass over the text (256 `Replace` steps instead cost two thirds of
the speed on SMILES), and one `Replace` per character unescapes after decoding.
"""

import itertools
import struct
from collections.abc import Mapping
from typing import Any

from tokenizers import decoders, normalizers

ESCAPE = "␛"
"""U+241B: no corpus contains it. It is escaped itself."""

JOINING = "\n\u200c\u0303\u20dd"
"""Escaped characters that form one grapheme with the character before them. A charsmap is applied to graphemes and
loses what follows a match inside one (tokenizers 0.23), so a `Replace` each removes them first."""

ESCAPED = JOINING + "".join((
    "\t\r\u00a0\u2002\u2003\u2009\u200a\u200b\u202f\ufeff▁",  # white space; ▁ stands for a space
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱªº₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₓₙ",
    "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⁄",
    "″‴`´¨˜¯¸",
    "←↑↓↔⇌⇄⇒⇔⟶",
    "ΑΒΓΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩζηθικξοπρσςτχψϕϵϑ",
    "\u00b5\u2126\u212a\u212b℃℉ℓ‰™℠",  # micro, ohm, kelvin and ångström signs, which look like letters
    "≡≃≅≠≥≦≧∂∫∞∑∏√∆∇∥∪∩⊕∼∝∙⋅≪≫÷∓∅∈¬",
    "□■○◯●◦△▲▽▼◇◆★☆✓",
    "…‥‐‑‒―†‡§¶©¢¥¦‖∣⟦⟧⟨⟩ﬀﬁﬂﬃﬄ¡¿",
    "ÀÁÂÃÄÆÇÈÊËÌÍÏÐÑÒÓÔÕÖØÙÚÛÝÞãåæëìíïðñòõøúýþÿ",
))  # fmt: skip
"""All such characters in the public corpora, and related ones. T5 spells none of them unchanged."""


def spelled(character: str) -> str:
    """The escape of a character."""
    return f"{ESCAPE}{ord(character):04x}"


def escaping() -> list[Any]:
    """Normalizers that escape ESCAPE and every character in ESCAPED."""
    pairs = {character: spelled(character) for character in ESCAPE + ESCAPED}
    alone = [normalizers.Replace(character, pairs.pop(character)) for character in JOINING]
    # ESCAPE in the text comes first: it must not match the escapes of JOINING.
    return [normalizers.Replace(ESCAPE, pairs.pop(ESCAPE)), *alone, normalizers.Precompiled(charsmap(pairs))]


def unescaping() -> list[Any]:
    """Decoders that unescape the whole text. ESCAPE comes last, so its result is not unescaped again."""
    return [decoders.Replace(spelled(character), character) for character in ESCAPED + ESCAPE]


def charsmap(pairs: Mapping[str, str]) -> bytes:
    """A charsmap, as SentencePiece compiles it, that replaces each key by its value.

    It consists of a trie's size, the trie, and the NUL-terminated values. The trie is a darts-clone double array over
    the keys' UTF-8: a unit has its label (bits 0-7), whether a key ends there (bit 8) and the XOR distance to its
    children (bits 10-31); the child without a label has bit 31 and the offset of the value.
    """
    values = bytearray()
    trie: dict[int, Any] = {}
    for key, value in pairs.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(values)
        values += value.encode() + b"\0"
    units = {0: 0}
    bases: set[int] = set()

    def place(node: dict[int, Any], at: int) -> None:
        free = (b for b in itertools.count(1) if b not in bases and not any(b ^ label in units for label in node))
        base = next(free)
        bases.add(base)
        units[at] |= (at ^ base) << 10 | (0 in node) << 8
        for label, child in node.items():
            units[base ^ label] = label if label else 1 << 31 | child
        for label, child in node.items():
            if label:
                place(child, base ^ label)

    place(trie, 0)
    # Whole blocks of 256: a reader accesses base ^ byte, for any byte, before it compares labels.
    size = (max(*units, *bases) | 255) + 1
    array = struct.pack(f"<{size}I", *(units.get(at, 0) for at in range(size)))
    return struct.pack("<I", len(array)) + array + bytes(values)
