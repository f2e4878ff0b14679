"""The leakage check: which molecules are the same, and which rows go."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from bigchem.data.leakage import drop_leaked, identity
from bigchem.data.sources import reader
from bigchem.data.sources.base import SourceConfig
from bigchem.data.sources.molecules import canonical, without_maps

DATA = Path(os.environ.get("BIGCHEM_DATA", Path(__file__).parents[2] / "../shared/data"))


def test_identity_is_of_the_molecule_not_of_its_spelling():
    assert identity("OCC") == identity("C(O)C") == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert identity("Oc1ccccn1") == identity("O=c1cccc[nH]1")
    assert identity("[Na+].[Cl-]") == identity("[Cl-].[Na+]")


def test_identity_knows_stereoisomers_apart_but_shares_their_skeleton():
    left, right = identity("C[C@H](N)C(=O)O"), identity("C[C@@H](N)C(=O)O")
    assert left is not None
    assert right is not None
    assert left != right
    assert left[:14] == right[:14]


@pytest.mark.parametrize("smiles", ["", "C(", "not SMILES", "*CC", "C" * 2000])
def test_identity_is_none_where_there_is_no_inchi(smiles):
    assert identity(smiles) is None


def test_leaked_rows_go_and_are_counted_per_pair_of_tasks():
    train = {"forward": ["A", "B", None, "C", "A"], "actions": [None, None], "captioning": ["D"]}
    held_out = {"test/captioning": {"A", "X"}, "valid/forward": {"A", "C"}, "test/actions": frozenset()}
    kept, report = drop_leaked(train, held_out)
    assert kept == {"forward": [1, 2], "actions": [0, 1], "captioning": [0]}
    assert report == {
        "forward": {
            "rows": 5,
            "dropped": 3,
            "unidentified": 1,
            "by_held_out": {"test/captioning": 2, "valid/forward": 3},
        },
        "actions": {"rows": 2, "dropped": 0, "unidentified": 2, "by_held_out": {}},
        "captioning": {"rows": 1, "dropped": 0, "unidentified": 0, "by_held_out": {}},
    }


def test_nothing_held_out_drops_nothing():
    assert drop_leaked({"forward": ["A", None]}, {})[0] == {"forward": [0, 1]}


def products(name: str, file: str, limit: int | None) -> list[str]:
    """Canonical product of each reaction; empty where there is none."""
    path = DATA / file
    if not path.is_file():
        pytest.skip(f"no {file}: set BIGCHEM_DATA")
    source = SourceConfig(format=name, split="train", path=str(path))
    records = islice(reader(name).records(source), limit)
    texts = [record.fields[0].split(">")[2] for record in records]
    return [canonical(without_maps(text)) for text in texts]


def check_overlap(limit: int | None) -> tuple[int, int, int]:
    """(distinct test products, those of them that are training products, training rows dropped)."""
    test = products("mapped_reactions", "uspto_mit/test.txt.gz", limit)
    train = products("reaction_csv", "uspto_50k/train.csv", limit)
    shared = set(test) & set(train)
    held_out = {found for smiles in set(test) if (found := identity(smiles)) is not None}
    kept, report = drop_leaked({"retrosynthesis": [identity(s) for s in train]}, {"test/forward": held_out})
    assert not shared & {train[i] for i in kept["retrosynthesis"]}
    dropped = len(train) - len(kept["retrosynthesis"])
    assert report["retrosynthesis"]["by_held_out"] == {"test/forward": dropped}
    return len(set(test)), len(shared), dropped


@pytest.mark.data
def test_uspto_mit_test_products_are_found_among_uspto_50k_train_products_in_a_slice():
    distinct, shared, dropped = check_overlap(4000)
    assert (distinct, shared) == (3993, 17)
    assert dropped >= shared


@pytest.mark.data
@pytest.mark.slow
def test_all_1535_uspto_mit_test_products_are_found_among_uspto_50k_train_products():
    distinct, shared, dropped = check_overlap(None)
    assert (distinct, shared) == (39516, 1535)
    assert dropped >= shared
