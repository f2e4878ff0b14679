"""Characters that T5 cannot spell, or that its normalisation changes, spelled in those it has: ½ is `␛00bd`.

ESCAPE and four hexadecimal digits, so that no end has to be marked. Both ways are parts of tokenizer.json: a
SentencePiece charsmap before T5's own (one pass over the text, however many characters there are: 256 `Replace` in its
stead cost two thirds of the speed on SMILES) and, after decoding, one `Replace` for each character.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from typing import Any

from tokenizers import decoders, normalizers

ESCAPE = "␛"
"""U+241B: no corpus holds it. It is escaped itself."""

JOINING = "\n\u200c\u0303\u20dd"
"""Escaped characters that join the one before them to one grapheme. A charsmap is applied to graphemes, and loses
what follows a match inside one (tokenizers 0.23), so that these have to be gone before it: by a `Replace` each."""

ESCAPED = JOINING + "".join((
    "\t\r\u00a0\u2002\u2003\u2009\u200a\u200b\u202f\ufeff▁",  # white space; ▁ is what a space becomes
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
"""All that the public corpora hold, and their neighbours. None is a character that T5 spells and leaves as it is."""


def spelled(character: str) -> str:
    """How an escaped character is spelled."""
    return f"{ESCAPE}{ord(character):04x}"


def escaping() -> list[Any]:
    """Normalizers that spell ESCAPE and every one of ESCAPED."""
    pairs = {character: spelled(character) for character in ESCAPE + ESCAPED}
    alone = [normalizers.Replace(character, pairs.pop(character)) for character in JOINING]
    # ESCAPE in the text is spelled first: what JOINING became must not be taken for it.
    return [normalizers.Replace(ESCAPE, pairs.pop(ESCAPE)), *alone, normalizers.Precompiled(charsmap(pairs))]


def unescaping() -> list[Any]:
    """Decoders that undo it on the whole text. ESCAPE comes last: what it then gives is not read again."""
    return [decoders.Replace(spelled(character), character) for character in ESCAPED + ESCAPE]


def charsmap(pairs: Mapping[str, str]) -> bytes:
    """A charsmap as SentencePiece compiles it, that turns each key into its value.

    The size of a trie, the trie, and the values, each ended by a NUL. The trie is a darts-clone double array over the
    keys' UTF-8: a unit holds its label (bits 0-7), whether a key ends there (bit 8) and the XOR distance to its
    children (bits 10-31); the child without a label holds bit 31 and the place of the value.
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
    # Whole blocks of 256: a reader looks at base ^ byte, whatever the byte, before it compares labels.
    size = (max(*units, *bases) | 255) + 1
    array = struct.pack(f"<{size}I", *(units.get(at, 0) for at in range(size)))
    return struct.pack("<I", len(array)) + array + bytes(values)
