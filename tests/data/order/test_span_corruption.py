"""Span corruption: T5's counts, nothing lost, lengths known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_files import REAL_DATA

from bigchem.chemistry.tokens import atom_starts
from bigchem.data.order.span_corruption import Spans, row_keys
from bigchem.data.text.tokenizer import Tokenizer

EOS = 1
SENTINELS = np.arange(32099, 31999, -1)
T5 = Spans(0.15, 3.0, SENTINELS)


def rows_of(lens: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Flat ids of rows of these tokens, with end tokens, and their lengths."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate([np.append(rng.integers(3, 30000, n), EOS) for n in lens])
    return ids, np.array(lens) + 1


def split(ids: np.ndarray, lens: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, np.cumsum(lens)[:-1])]


def put_back(source: list[int], target: list[int]) -> tuple[list[int], list[bool]]:
    """The row from which a (source, target) was made, without its end token, and which tokens were noise."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            spans[token] = current = []
        else:
            current.append(token)
    ids: list[int] = []
    noise: list[bool] = []
    for token in source[:-1]:
        filled = spans.get(token, [token])
        ids += filled
        noise += [token in spans] * len(filled)
    return ids, noise


lengths = st.lists(st.integers(2, 400), min_size=1, max_size=12)
settings_of_spans = st.builds(
    Spans, st.floats(0.02, 0.9), st.floats(1.0, 12.0), st.integers(1, 100).map(lambda n: SENTINELS[:n])
)


@given(lengths, settings_of_spans, st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_source_and_target_put_together_are_the_row_and_lengths_are_as_told(
    lens: list[int], spans: Spans, seed: int
) -> None:
    ids, stored = rows_of(lens)
    keys = row_keys(seed, 5, np.arange(len(lens)), np.zeros(len(lens), dtype=np.int64))
    source, target = spans.corrupt(ids, stored, keys)
    due = spans.lengths(np.array(lens))
    noise_counts, span_counts = spans.counts(np.array(lens))
    for row, s, t, noise, count in zip(
        split(ids, stored), split(source, due[:, 0]), split(target, due[:, 1]), noise_counts, span_counts, strict=True
    ):
        assert s[-1] == t[-1] == EOS
        back, mask = put_back(s, t)
        assert back == row[:-1]
        assert sum(mask) == noise
        assert [token for token in t if token in SENTINELS] == spans.sentinels[:count].tolist()
        assert not mask[0]


def test_counts_are_those_of_seqio() -> None:
    noise, spans = T5.counts(np.array([2, 7, 20, 100, 512]))
    assert noise.tolist() == [1, 1, 3, 15, 77]
    assert spans.tolist() == [1, 1, 1, 5, 26]


def test_a_row_is_corrupted_alike_wherever_it_stands_and_otherwise_in_the_next_epoch_or_run() -> None:
    ids, lens = rows_of([60, 80, 100])
    rows, first = np.array([4, 9, 17]), np.zeros(3, dtype=np.int64)
    together, _ = T5.corrupt(ids, lens, row_keys(0, 5, rows, first))
    alone, _ = T5.corrupt(ids[61:142], lens[1:2], row_keys(0, 5, rows[1:2], first[:1]))
    due = T5.lengths(np.array([60, 80, 100]))[:, 0]
    assert split(together, due)[1] == alone.tolist()
    for keys in (row_keys(0, 5, rows, first + 1), row_keys(1, 5, rows, first), row_keys(0, 6, rows, first)):
        assert T5.corrupt(ids, lens, keys)[0].tolist() != together.tolist()


def test_every_token_but_the_first_is_noise_sometimes() -> None:
    n, rows = 40, 3000
    ids, lens = np.tile(np.append(np.arange(100, 100 + n), EOS), rows), np.full(rows, n + 1)
    source, target = T5.corrupt(ids, lens, row_keys(0, 5, np.arange(rows), np.zeros(rows, dtype=np.int64)))
    due = T5.lengths(lens - 1)
    masks = [put_back(s, t)[1] for s, t in zip(split(source, due[:, 0]), split(target, due[:, 1]), strict=True)]
    share = np.array(masks).mean(axis=0)
    assert share[0] == 0
    assert 0.03 < share[1:].min() < share[1:].max() < 0.3


atoms = st.lists(st.lists(st.integers(1, 6), min_size=8, max_size=60), min_size=1, max_size=5)


@given(atoms, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_spans_that_respect_atoms_lose_nothing_and_keep_the_lengths(sizes: list[list[int]], seed: int) -> None:
    lens = [sum(row) for row in sizes]
    ids, stored = rows_of(lens)
    starts = [np.isin(np.arange(n), np.cumsum([0, *row])) for n, row in zip(lens, sizes, strict=True)]
    keys = row_keys(seed, 6, np.arange(len(lens)), np.zeros(len(lens), dtype=np.int64))
    source, target = T5.corrupt(ids, stored, keys, starts)
    due = T5.lengths(np.array(lens))
    for row, s, t in zip(split(ids, stored), split(source, due[:, 0]), split(target, due[:, 1]), strict=True):
        assert put_back(s, t)[0] == row[:-1]


@pytest.mark.data
def test_under_one_in_a_hundred_published_molecules_has_no_place_for_spans_between_atoms() -> None:
    file = REAL_DATA / "chebi20" / "test.txt"
    vocabulary = REAL_DATA.parent / "vocab" / "t5"
    if not (file.is_file() and vocabulary.is_dir()):
        pytest.skip("no chebi20 or no vocab/t5: set BIGCHEM_DATA")
    smiles = [line.split("\t")[1].replace("\\\\", "\\") for line in file.read_text().splitlines()[1:1001]]
    encoded, at = Tokenizer.from_t5(vocabulary).encode_with_starts(smiles)
    pairs = [(row, np.isin(a[:-1], atom_starts(s))) for row, a, s in zip(encoded, at, smiles, strict=True)]
    pairs = [(row, starts) for row, starts in pairs if len(starts) > 1]
    ids, lens = np.concatenate([row for row, _ in pairs]), np.array([len(row) for row, _ in pairs])
    keys = row_keys(0, 6, np.arange(len(pairs)), np.zeros(len(pairs), dtype=np.int64))
    source, target = T5.corrupt(ids, lens, keys, [starts for _, starts in pairs])
    due = T5.lengths(lens - 1)
    across = 0
    for s, t, (_, starts) in zip(split(source, due[:, 0]), split(target, due[:, 1]), pairs, strict=True):
        noise = np.array(put_back(s, t)[1])
        across += not starts[np.flatnonzero(noise[1:] != noise[:-1]) + 1].all()
    assert 0 < across < 10


@pytest.mark.parametrize("largest", [1, 3])
def test_spans_that_respect_atoms_begin_and_end_at_them(largest: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [rng.integers(1, largest + 1, 50) for _ in range(200)]
    lens = [int(row.sum()) for row in sizes]
    ids, stored = rows_of(lens)
    starts = [np.isin(np.arange(n), np.cumsum([0, *row])) for n, row in zip(lens, sizes, strict=True)]
    keys = row_keys(0, 6, np.arange(200), np.zeros(200, dtype=np.int64))
    source, target = T5.corrupt(ids, stored, keys, starts)
    due = T5.lengths(np.array(lens))
    for s, t, legal in zip(split(source, due[:, 0]), split(target, due[:, 1]), starts, strict=True):
        noise = np.array(put_back(s, t)[1])
        borders = np.flatnonzero(noise[1:] != noise[:-1]) + 1
        assert legal[borders].all()
