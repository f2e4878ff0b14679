"""Rows of the embedded corpus, for the tests of its parts."""

from __future__ import annotations

from collections import Counter

from rdkit import Chem

from bigchem.data.sources.base import Row, SourceConfig
from bigchem.data.sources.synthetic.corpus import Synthetic
from bigchem.tasks import shipped

ROWS = 3000


def config(**fields: object) -> SourceConfig:
    return SourceConfig.model_validate({"format": "synthetic", "split": "train", "rows": ROWS, **fields})


def read(source: SourceConfig) -> list[Row]:
    reader = Synthetic()
    return [row for record in reader.records(source, shipped()) for row in reader.rows(record, source, shipped())]


def of(corpus: list[Row], *tasks: str) -> list[Row]:
    return [row for row in corpus if row.task in tasks]


def atoms(smiles: str) -> Counter[str]:
    return Counter(atom.GetSymbol() for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms())
