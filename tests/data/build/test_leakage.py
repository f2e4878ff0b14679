"""The leak filter: which molecules are equal, and which rows are dropped."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from real_files import REAL_DATA

from bigchem.chemistry import canonical, without_maps
from bigchem.data.build.leakage import Identities, Identity, Training, drop_leaked, identities
from bigchem.data.sources import reader
from bigchem.data.sources.base import SourceConfig
from bigchem.tasks import shipped


def inchikeys(molecule: str) -> list[str]:
    return [found.exact for found in identities(molecule)]


def test_identity_is_of_the_molecule_not_of_its_spelling():
    assert inchikeys("OCC") == inchikeys("C(O)C") == ["LFQSCWFLJHTTHZ-UHFFFAOYSA-N"]
    assert inchikeys("Oc1ccccn1") == inchikeys("O=c1cccc[nH]1")
    assert inchikeys("[Na+]~[Cl-]") == inchikeys("[Cl-]~[Na+]")


def test_compounds_have_an_identity_each_and_fragments_of_one_share_it():
    assert inchikeys("CO.CCO") == inchikeys("CO") + inchikeys("CCO")
    assert len(inchikeys("[Na+]~[Cl-].CO")) == 2


def test_identity_knows_stereoisomers_apart_but_shares_their_skeleton():
    (left,), (right,) = identities("C[C@H](N)C(=O)O"), identities("C[C@@H](N)C(=O)O")
    assert left.exact != right.exact
    assert left.skeleton == right.skeleton == left.exact[:14]


def test_a_molecule_without_inchi_is_known_by_its_canonical_smiles():
    (left,), (right,) = identities("*[C@H](N)C(=O)O"), identities("OC(=O)[C@@H](N)*")
    assert left == Identity("*[C@H](N)C(=O)O", "*C(N)C(=O)O", has_inchi=False)
    assert right == left or right.skeleton == left.skeleton
    assert not left.has_inchi


@pytest.mark.parametrize("smiles", ["", "C(", "not SMILES"])
def test_what_rdkit_cannot_read_has_no_identity(smiles):
    assert identities(smiles) == ()


def about(*rows: str) -> Identities:
    """Rows by their molecules: "A1" and "A2" are stereoisomers, "A1 B1" is two molecules, "" is none."""
    return Identities.of([[Identity(name, name[0]) for name in row.split()] for row in rows])


def training(*rows: str, same_source: tuple[int, ...] = ()) -> Training:
    return Training(about(*rows), np.isin(np.arange(len(rows)), same_source))


def masks_and_report(train, held_out, keep_out="exact"):
    stays, report = drop_leaked(train, held_out, keep_out)
    return {task: mask.tolist() for task, mask in stays.items()}, report


def test_leaked_rows_go_and_are_counted_per_pair_of_tasks():
    train = {
        "forward": training("A1", "B1", "", "C1", "A1", "A2", "B1 C1"),
        "actions": training("", "", same_source=(1,)),
    }
    held_out = {"test/captioning": about("A1", "X1"), "valid/forward": about("C1", "A1", "C1")}
    stays, report = masks_and_report(train, held_out)
    assert stays == {"forward": [False, True, True, False, False, True, False], "actions": [True, False]}
    assert report["forward"] == {
        "rows": 7,
        "dropped": 4,
        "same_source": 0,
        "unidentified": 1,
        "by_held_out": {
            "test/captioning": {"rows": 2, "molecules": 1, "skeleton_rows": 3, "skeleton_molecules": 1},
            "valid/forward": {"rows": 4, "molecules": 2, "skeleton_rows": 5, "skeleton_molecules": 2},
        },
    }
    assert report["actions"] == {"rows": 2, "dropped": 1, "same_source": 1, "unidentified": 2, "by_held_out": {}}


@pytest.mark.parametrize(("keep_out", "expected"), [("exact", [False, True]), ("skeleton", [False, False])])
def test_other_stereoisomers_stay_or_go_as_asked_and_are_counted_either_way(keep_out, expected):
    stays, report = masks_and_report({"forward": training("A1", "A2")}, {"test/forward": about("A1")}, keep_out)
    assert stays["forward"] == expected
    overlap = report["forward"]["by_held_out"]["test/forward"]
    assert overlap == {"rows": 1, "molecules": 1, "skeleton_rows": 2, "skeleton_molecules": 1}


def test_a_held_out_set_that_shares_only_skeletons_is_in_the_report():
    _, report = masks_and_report({"forward": training("A1")}, {"test/forward": about("A2")})
    overlap = report["forward"]["by_held_out"]["test/forward"]
    assert overlap == {"rows": 0, "molecules": 0, "skeleton_rows": 1, "skeleton_molecules": 1}


def test_nothing_is_dropped_when_nothing_is_asked_for_or_held_out_but_all_is_counted():
    train = {"forward": training("A1", "", same_source=(1,))}
    stays, report = masks_and_report(train, {"test/forward": about("A1")}, "none")
    assert stays["forward"] == [True, True]
    assert report["forward"]["same_source"] == 1
    assert report["forward"]["by_held_out"]["test/forward"]["rows"] == 1
    assert masks_and_report({"forward": training("A1", "")}, {})[0]["forward"] == [True, True]


def products(name: str, file: str, limit: int | None) -> list[str]:
    """Canonical product of each reaction."""
    path = REAL_DATA / file
    if not path.is_file():
        pytest.skip(f"no {file}: set BIGCHEM_DATA")
    source = SourceConfig(format=name, split="train", path=str(path))
    records = islice(reader(name).records(source, shipped()), limit)
    texts = [record.fields[0].split(">")[2] for record in records]
    return [canonical(without_maps(text)).replace(".", "~") for text in texts]


def check_overlap(limit: int | None) -> tuple[int, int, int]:
    """Numbers of (distinct test products, those with the same spelling among the training products, test molecules that
    the report finds there)."""
    test = sorted(set(products("mapped_reactions", "uspto_mit/test.txt.gz", limit)))
    train = products("reaction_csv", "uspto_50k/train.csv", limit)
    shared = set(test) & set(train)
    stays, report = drop_leaked(
        {"retrosynthesis": Training(Identities.of([identities(s) for s in train]), np.zeros(len(train), dtype=bool))},
        {"test/forward": Identities.of([identities(s) for s in test])},
        "exact",
    )
    left = np.array(train)[stays["retrosynthesis"]]
    assert not shared & set(left)
    overlap = report["retrosynthesis"]["by_held_out"]["test/forward"]
    assert overlap["rows"] == len(train) - len(left)
    return len(test), len(shared), overlap["molecules"]


@pytest.mark.data
def test_uspto_mit_test_products_are_found_among_uspto_50k_train_products_in_a_slice():
    assert check_overlap(4000) == (3993, 17, 17)


@pytest.mark.data
@pytest.mark.slow
def test_all_1535_uspto_mit_test_products_are_found_among_uspto_50k_train_products():
    distinct, shared, found = check_overlap(None)
    assert (distinct, shared) == (39516, 1535)
    assert found >= shared
