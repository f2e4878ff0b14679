"""T5's span corruption: unlabelled text to (source, target), a pure function of the row, the epoch and the seed.

Of n tokens, a share of `density` is noise, in spans of `mean_span` on average. The source has a sentinel in place of
each span; the target has each sentinel followed by its span (Raffel et al., "Exploring the limits of transfer
learning", 2020, section 3.1.4). The numbers of noise tokens and spans follow from n alone, as in seqio's
random_spans_noise_mask, so lengths are known without reading a row. Only the placement is random. seqio's last span
always ends the row, so a short molecule would lose the same atoms in every epoch; here every placement that spares the
first token is equally likely.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigchem.data.order.examples import KeyArray, mix64, permutation_key
from bigchem.data.ragged import IntArray, row_offsets

BoolArray = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Spans:
    """density: share of tokens that are noise. mean_span: mean tokens of a span. sentinels: ids in order of use; a row
    has at most as many spans."""

    density: float
    mean_span: float
    sentinels: Ids

    def counts(self, tokens: IntArray) -> tuple[IntArray, IntArray]:
        """(noise tokens, spans) of rows with `tokens` tokens each, at least two, end token not counted."""
        noise = np.clip(np.rint(tokens * self.density).astype(np.int64), 1, np.maximum(tokens - 1, 1))
        spans = np.clip(np.rint(noise / self.mean_span).astype(np.int64), 1, np.minimum(noise, tokens - noise))
        return noise, np.minimum(spans, len(self.sentinels))

    def lengths(self, tokens: IntArray) -> IntArray:
        """[n, 2] source and target tokens, end tokens included, of rows with `tokens` tokens, end token not counted."""
        noise, spans = self.counts(tokens)
        return np.stack([tokens - noise + spans + 1, noise + spans + 1], axis=1)

    def corrupt(
        self, ids: Ids, lens: IntArray, keys: KeyArray, atoms: Sequence[BoolArray] | None = None
    ) -> tuple[Ids, Ids]:
        """(source ids, target ids), flat, of B rows; their lengths are `lengths(lens - 1)`.

        ids: flat, each row with its end token; lens: [B]. keys: [B], see row_keys. atoms: for each row, whether each
        token but the end token starts an atom; spans then begin and end at atoms.
        """
        tokens = lens - 1
        noise, spans = self.counts(tokens)
        place = row_offsets(2 * spans + 1)  # text, noise, text, noise, ..., text; only the last may be empty
        parts = np.empty_like(place)
        parts[place % 2 == 0] = _composition(tokens - noise + 1, spans + 1, keys)
        parts[np.cumsum(2 * spans + 1) - 1] -= 1
        parts[place % 2 == 1] = _composition(noise, spans, mix64(keys))
        is_noise = np.repeat(place % 2 == 1, parts)
        if atoms is not None:
            rows = zip(np.split(is_noise, np.cumsum(tokens)[:-1]), noise, spans, atoms, keys, strict=True)
            is_noise = np.concatenate([_at_atoms(*row) for row in rows])
        end = np.zeros(len(ids), dtype=bool)
        end[np.cumsum(lens) - 1] = True
        full = np.zeros(len(ids), dtype=bool)
        full[~end] = is_noise
        return self._assemble(ids, full, end, spans)

    def _assemble(self, ids: Ids, noise: BoolArray, end: BoolArray, spans: IntArray) -> tuple[Ids, Ids]:
        """The two sides from a mask over flat rows; end tokens go to both."""
        starts = noise & ~np.concatenate([[False], noise[:-1]])
        sentinel = np.zeros_like(ids)
        sentinel[starts] = self.sentinels[row_offsets(spans)]
        source = np.where(starts, sentinel, ids)[~noise | starts]
        take = np.repeat(np.arange(len(ids)), noise.astype(np.int64) + starts + end)
        opens = starts[take] & np.concatenate([[True], take[1:] != take[:-1]])
        return source, np.where(opens, sentinel[take], ids[take])


def row_keys(seed: int, task_id: int, rows: IntArray, epochs: IntArray, purpose: str = "spans") -> KeyArray:
    """[B] keys that determine a random choice about a row in an epoch, such as where its spans are."""
    run = permutation_key(seed, task_id, purpose)[0]
    return mix64(mix64(rows.astype(np.uint64) ^ run) + epochs.astype(np.uint64))


def _composition(items: IntArray, parts: IntArray, keys: KeyArray) -> IntArray:
    """For each row, `parts[i]` lengths >= 1 that sum to `items[i]`, every such composition equally likely; flat."""
    row = np.repeat(np.arange(len(items)), items)
    place = row_offsets(items)
    draw = mix64(keys[row] + place.astype(np.uint64))
    draw[place == 0] = 0  # a row's first item always opens a part
    rank = np.empty_like(row)
    rank[np.lexsort((draw, row))] = place
    opens = np.flatnonzero(rank < parts[row])
    return np.diff(np.append(opens, len(row)))


def _at_atoms(mask: BoolArray, noise: np.int64, spans: np.int64, starts: BoolArray, key: np.uint64) -> BoolArray:
    """A mask with as many noise tokens in as many spans, each from the start of one atom to the start of another.

    All legal placements of the drawn lengths are equally likely; lengths that fit nowhere are drawn again. After eight
    draws without a fit (few atoms in long brackets) the mask is unchanged.
    """
    legal = np.append(starts, True)
    for attempt in range(1, 9):
        keys = mix64(np.array([key + np.uint64(attempt)], dtype=np.uint64))
        lengths = _composition(np.array([noise]), np.array([spans]), keys).tolist()
        places = _places(lengths, legal, keys[0])
        if places:
            placed = np.zeros_like(mask)
            for place, length in zip(places, lengths, strict=True):
                placed[place : place + length] = True
            return placed
    return mask


def _places(lengths: list[int], legal: BoolArray, key: np.uint64) -> list[int]:
    """Random starts of spans of these lengths, in order, at least a token apart, not at 0, all borders legal; empty if
    there are none. legal: [tokens + 1]."""
    tokens = len(legal) - 1
    placements = np.ones(tokens + 2)  # number of placements of the remaining spans, by the first position open to them
    tables = []
    for length in reversed(lengths):
        here = np.where(legal[: tokens + 1 - length] & legal[length:], placements[length + 1 :], 0.0)
        here[0] = 0.0
        placements = np.zeros(tokens + 2)
        placements[: len(here)] = np.cumsum(here[::-1])[::-1]
        tables.append(here)
    if not placements[0]:
        return []
    draws = mix64(key + np.arange(1, len(lengths) + 1, dtype=np.uint64)) >> np.uint64(11)
    places, first = [], 0
    for here, length, draw in zip(reversed(tables), lengths, draws.tolist(), strict=True):
        total = np.cumsum(here[first:])
        place = first + int(np.searchsorted(total, draw * 2.0**-53 * total[-1], side="right"))
        places.append(place)
        first = place + length + 1
    return places
