"""Aligns two files of predictions: the examples of one in the order of the other."""

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TypeVar

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.base.progress import Progress
from bigchem.evaluate.prediction_files.tables import Examples

T = TypeVar("T")
_HINT = "paired differences need the same examples; name the column that identifies them: --column key=NAME"


def aligned(first: Examples, second: Examples, first_file: Path, second_file: Path) -> Examples:
    """The examples of `second`, from the file `second_file`, in the order of `first`, from `first_file`.

    Examples match by key, if a key column is named, else by source and references. Repeated examples are paired in file
    order. UserError unless the files hold the same examples.
    """
    names = [_names(first), _names(second)]
    if names[0] == names[1]:
        return second if first.keys is None else _checked(first, second, first_file, second_file)
    places: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for place, name in enumerate(names[1]):
        places[name].append(place)
    if first.keys is not None and len(places) < len(names[1]):
        twice = next(name for name, found in places.items() if len(found) > 1)
        raise UserError(f"several examples with the key {twice!r}", str(second_file), "keys must be unique")
    order = [places[name].popleft() if places[name] else None for name in names[0]]
    if None in order or len(names[0]) != len(names[1]):
        raise _other_examples(first, second, order, (first_file, second_file))
    found = [place for place in order if place is not None]
    joined_by = "source and target" if first.keys is None else "key"
    report = f"{second_file}: read in the order of {first_file}, joined by {joined_by}"
    repeats = len(names[1]) - len(places)
    Progress().say(f"{report}; repeated examples paired in file order: {repeats}" if repeats else report)
    return _checked(first, _taken(second, found), first_file, second_file)


def _names(examples: Examples) -> Sequence[Hashable]:
    if examples.keys is not None:
        return examples.keys
    return [(source, *several) for source, several in zip(examples.sources, examples.references, strict=True)]


def _taken(examples: Examples, order: list[int]) -> Examples:
    return examples._replace(
        sources=[examples.sources[place] for place in order],
        references=[examples.references[place] for place in order],
        predictions=[examples.predictions[place] for place in order],
        keys=_at(order, examples.keys),
        label_log_probabilities=_at(order, examples.label_log_probabilities),
        losses=_at(order, examples.losses),
    )


def _at(order: list[int], column: list[T] | None) -> list[T] | None:
    return None if column is None else [column[place] for place in order]


def _checked(first: Examples, second: Examples, first_file: Path, second_file: Path) -> Examples:
    """UserError where examples with the same key have different references."""
    for number, (wanted, found) in enumerate(zip(first.references, second.references, strict=True), 1):
        if wanted != found:
            key = f" (key {first.keys[number - 1]!r})" if first.keys else ""
            what = f"its target is {found[0][:60]!r}, in {first_file} {wanted[0][:60]!r}"
            raise UserError(f"example {number}{key} differs: {what}", str(second_file), _HINT)
    return second


def _other_examples(first: Examples, second: Examples, order: list[int | None], paths: tuple[Path, Path]) -> UserError:
    first_file, second_file = paths
    missing = [place for place, found in enumerate(order) if found is None]
    counts = f"{number_of('example', len(second.sources))}, {first_file} has {len(first.sources)}"
    if not missing:
        return UserError(f"{counts}; all of which are here", str(second_file), _HINT)
    place = missing[0]
    name = f"key {first.keys[place]!r}" if first.keys else f"source {first.sources[place][:60]!r}"
    what = f"{counts}; missing here: {len(missing)}, the first is number {place + 1}, with {name}"
    return UserError(f"{what} and target {first.references[place][0][:60]!r}", str(second_file), _HINT)
