"""Metrics of other packages: entry points of the group `bigchem.metrics`, which a task's `metrics` may list."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from bigchem.base.errors import UserError
from bigchem.base.printable import printable
from bigchem.evaluate.metrics.intervals import Statistic, mean_of
from bigchem.evaluate.protocol.metric import Metric
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError

GROUP = "bigchem.metrics"


@dataclass(frozen=True)
class ExampleMetric:
    """A metric that is a mean over examples, for a package's entry point of its name.

    definition: `NAME/VERSION`; a change that can change a number needs a new one. meaning: one sentence. compute:
    (references, predictions, sources), lists of texts [examples], the best prediction of each -> numbers [examples];
    NaN for an example that does not count. The interval is a percentile bootstrap over the examples.
    """

    name: str
    definition: str
    meaning: str
    compute: Callable[[list[str], list[str], list[str]], Sequence[float]]
    higher_is_better: bool = True


def installed() -> dict[str, EntryPoint]:
    """The metrics of installed packages by name, not loaded. UserError if two packages have one of the same name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if (other.value, _package(other)) != (entry.value, _package(entry)):
            packages = f"packages {_package(other)} and {_package(entry)}"
            raise UserError(f"two metrics of the name '{entry.name}'", packages, "uninstall one of them")
    return found


def load(entry: EntryPoint) -> Metric:
    """The metric of an entry point. UserError, with the package's name, if it is none."""
    where = place(entry)
    try:
        found = entry.load()
    except Exception as error:  # whatever another package's import raises
        raise UserError(f"does not load: {_brief(error)}", where) from error
    if not isinstance(found, ExampleMetric):
        raise UserError(f"is {type(found).__name__}, not an ExampleMetric", where, "docs/evaluation.md has an example")
    if found.name != entry.name:
        raise UserError(f"calls itself '{found.name}'", where, "give the entry point and the metric one name")
    if "/" not in found.definition or not found.meaning:
        raise UserError("needs a definition NAME/VERSION and a meaning", where)
    return Metric(
        found.name,
        found.definition,
        f"{found.meaning} (Package {_package(entry)}.)",
        lambda pairs: _computed(found, pairs, where),
        found.higher_is_better,
        lowest=-math.inf,
        highest=math.inf,
    )


def _computed(metric: ExampleMetric, pairs: Pairs, where: str) -> Statistic:
    """UnavailableError, with the package's name, where the metric fails: the other metrics still have their scores."""
    sides = list(pairs.references), list(pairs.best), list(pairs.sources)
    try:
        values = np.asarray(metric.compute(*sides), dtype=np.float64)
    except Exception as error:  # whatever another package's code raises
        raise UnavailableError(f"{where} failed: {_brief(error)}") from error
    if values.shape != (len(pairs.sources),) or np.isinf(values).any():
        what = f"gave {values.shape}, not one finite number or NaN for each of {len(pairs.sources)} examples"
        raise UnavailableError(f"{where} {what}")
    return mean_of(values)


def place(entry: EntryPoint) -> str:
    """The entry point in an error: `metric NAME of package PACKAGE (MODULE:OBJECT)`."""
    return f"metric {entry.name} of package {_package(entry)} ({entry.value})"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "without a name"


def _brief(error: Any) -> str:
    return f"{type(error).__name__}: {printable(error, limit=200)}"
