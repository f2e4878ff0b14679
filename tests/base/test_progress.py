from __future__ import annotations

import pytest

from bigchem.base.progress import amount


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (9_310_000, "9.31 MB"), (2.67e9, "2.67 GB"), (999.6e9, "1 TB"), (5e12, "5 TB")],
)
def test_bytes_are_told_in_three_digits(size: float, words: str) -> None:
    assert amount(size) == words
