"""Aligns two files of predictions: the examples of one in the order of the other."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.evaluate.prediction_files.tables import Examples

_HINT = "paired differences need the same examples; name the column that identifies them: --column key=NAME"


def aligned(one: Examples, two: Examples, first: Path, second: Path) -> Examples:
    """The examples of `two`, from the file `second`, in the order of `one`, from `first`.

    Examples match by key, if a key column is named, else by source and references. Repeated examples are paired in file
    order. UserError unless the files hold the same examples.
    """
    names = [_names(one), _names(two)]
    if names[0] == names[1]:
        return two if one.keys is None else _checked(one, two, first, second)
    places: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for place, name in enumerate(names[1]):
        places[name].append(place)
    if one.keys is not None and len(places) < len(names[1]):
        twice = next(name for name, found in places.items() if len(found) > 1)
        raise UserError(f"several examples with the key {twice!r}", str(second), "keys must be unique")
    order = [places[name].popleft() if places[name] else None for name in names[0]]
    if None in order or len(names[0]) != len(names[1]):
        raise _other_examples(one, two, order, (first, second))
    found = [place for place in order if place is not None]
    report = f"{second}: read in the order of {first}, joined by {'source and target' if one.keys is None else 'key'}"
    repeats = len(names[1]) - len(places)
    Progress().say(f"{report}; {repeats} repeated examples are paired in file order" if repeats else report)
    return _checked(one, _taken(two, found), first, second)


def _names(examples: Examples) -> Sequence[Hashable]:
    if examples.keys is not None:
        return examples.keys
    return [(source, *several) for source, several in zip(examples.sources, examples.references, strict=True)]


def _taken(examples: Examples, order: list[int]) -> Examples:
    keys = examples.keys
    return Examples(
        [examples.sources[place] for place in order],
        [examples.references[place] for place in order],
        [examples.predictions[place] for place in order],
        None if keys is None else [keys[place] for place in order],
        examples.counts,
    )


def _checked(one: Examples, two: Examples, first: Path, second: Path) -> Examples:
    """UserError where examples with the same key have different references."""
    for number, (wanted, other) in enumerate(zip(one.references, two.references, strict=True), 1):
        if wanted != other:
            key = f" (key {one.keys[number - 1]!r})" if one.keys else ""
            what = f"its target is {other[0][:60]!r}, in {first} {wanted[0][:60]!r}"
            raise UserError(f"example {number}{key} differs: {what}", str(second), _HINT)
    return two


def _other_examples(one: Examples, two: Examples, order: list[int | None], paths: tuple[Path, Path]) -> UserError:
    first, second = paths
    missing = [place for place, found in enumerate(order) if found is None]
    counts = f"{len(two.sources)} examples, {first} has {len(one.sources)}"
    if not missing:
        return UserError(f"{counts}; all of those are here", str(second), _HINT)
    place = missing[0]
    name = f"key {one.keys[place]!r}" if one.keys else f"source {one.sources[place][:60]!r}"
    what = f"{counts}, of which {len(missing)} are missing here: the first is number {place + 1}, with {name}"
    return UserError(f"{what} and target {one.references[place][0][:60]!r}", str(second), _HINT)
