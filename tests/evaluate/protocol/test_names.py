from __future__ import annotations

import pytest

from bigchem.evaluate.protocol.definitions import RANGES
from bigchem.evaluate.protocol.names import NAMES, with_unit, written


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("bleu4", "BLEU-4"),
        ("bleu2_words", "BLEU-2 (words)"),
        ("rougeL", "ROUGE-L"),
        ("top10_nostereo", "top-10 accuracy (without stereo)"),
        ("lev90", "90 % accuracy"),
        ("exact", "exact match"),
        ("a_packages_own", "a packages own"),
    ],
)
def test_metrics_are_written_as_people_do(metric: str, name: str) -> None:
    assert written(metric) == name


def test_names_differ_and_are_of_metrics_that_exist() -> None:
    assert len({written(metric) for metric in RANGES}) == len(RANGES)
    assert set(NAMES) <= {*RANGES, "loss"}
    assert with_unit("loss") == "loss (nats per token)"
