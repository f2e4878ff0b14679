"""Escapes in hexadecimal: both directions, with parts of tokenizer.json alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, normalizers

from bigchem.data.text.escapes import ESCAPE, ESCAPED, charsmap, escaping, spelled, unescaping

ESCAPING, UNESCAPING = normalizers.Sequence(escaping()), decoders.Sequence(unescaping())


def test_an_escaped_character_is_spelled_in_hexadecimal_and_others_are_left() -> None:
    assert ESCAPING.normalize_str("2½ °C\n") == "2␛00bd °C␛000a"
    assert ESCAPING.normalize_str("␛00bd") == "␛241b00bd"


@settings(max_examples=300)
@given(st.text(alphabet=ESCAPED + ESCAPE * 9 + "\r\n00bd241bx Cé\u0301", max_size=30))
def test_whatever_meets_comes_back(text: str) -> None:
    # An accent that is not escaped is lost after a match: see JOINING.
    text = "".join(c for before, c in zip(" " + text, text, strict=False) if c != "\u0301" or before in "x Cé0")
    escaped = ESCAPING.normalize_str(text)
    assert not set(escaped) & set(ESCAPED)
    assert UNESCAPING.decode([escaped]) == text


@settings(max_examples=100)
@given(st.dictionaries(st.characters(min_codepoint=1, exclude_categories=["M", "C"]), st.text("abc½", max_size=5)))
def test_a_charsmap_maps_its_keys_and_nothing_else(pairs: dict[str, str]) -> None:
    normalizer = normalizers.Precompiled(charsmap(pairs))
    for character in {*pairs, *"abz½é中"}:
        assert normalizer.normalize_str(character) == pairs.get(character, character)


def test_spelling_is_four_digits_for_every_character() -> None:
    assert {len(spelled(character)) for character in ESCAPED + ESCAPE} == {5}
