"""Figures of texts: the sum over any parts equals the whole's."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bigchem.data.text.tally import Tally, first_difference, tally
from bigchem.data.text.tokenizer import Tokenizer


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Name: CCO", "CNO 12"] * 10, 300)


@given(st.lists(st.text(alphabet="CNOX 1", min_size=1, max_size=20), min_size=1, max_size=12), st.integers(0, 12))
def test_parts_add_up_to_the_whole(texts: list[str], cut: int) -> None:
    whole = tally(tokenizer(), texts, "", limit=5, examples=3)
    parts = Tally()
    for part in (texts[:cut], texts[cut:]):
        parts.add(tally(tokenizer(), part, "", limit=5, examples=3), examples=3)
    assert parts == whole
    lengths = [len(ids) for ids in tokenizer().encode_batch(texts)]
    for percent in (1, 50, 90, 100):
        assert whole.percentile(percent) == np.percentile(lengths, percent, method="inverted_cdf")


def test_a_prompt_counts_for_lengths_and_not_for_rates() -> None:
    bare, prompted = (tally(tokenizer(), ["CCO", "CNO 12"], prompt, 9, 1) for prompt in ("", "Name: "))
    assert (bare.tokens, bare.characters) == (prompted.tokens, prompted.characters)
    assert prompted.percentile(100) > bare.percentile(100)
    assert prompted.longest[0][1] == "Name: CNO 12"


def test_the_first_difference_is_where_one_ends_before_the_other() -> None:
    assert first_difference("abc", "abcd")["at"] == 3
    assert first_difference("abc", "axc") == {"text": "abc", "at": 1, "expected": "abc", "found": "axc"}
