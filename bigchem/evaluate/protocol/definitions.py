"""Which metrics each family and each task gets, and what their definition ids say."""

from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint
from itertools import chain

from bigchem.base.errors import UserError, unknown
from bigchem.evaluate.protocol import plugins
from bigchem.evaluate.protocol.families.actions import ACTIONS
from bigchem.evaluate.protocol.families.captioning import CAPTIONING
from bigchem.evaluate.protocol.families.generation import GENERATION
from bigchem.evaluate.protocol.families.identifiers import FORMULA, NAME, REAGENTS
from bigchem.evaluate.protocol.families.labels import LABEL, LABELS
from bigchem.evaluate.protocol.families.numbers import NUMBER
from bigchem.evaluate.protocol.families.reactions import REACTION, ROUND_TRIPS
from bigchem.evaluate.protocol.families.text import TEXT
from bigchem.evaluate.protocol.metric import LOSS, Metric
from bigchem.tasks import Task

FAMILIES: dict[str, tuple[Metric, ...]] = {
    "caption": CAPTIONING,
    "molecule": GENERATION,
    "reaction": (*REACTION, *ROUND_TRIPS),
    "procedure": ACTIONS,
    "text": TEXT,
    "number": NUMBER,
    "label": LABEL,
    "labels": LABELS,
    "name": NAME,
    "formula": FORMULA,
    "reagents": REAGENTS,
}
"""Family of tasks -> its metrics, in the order of its table. Round trips are only for a task with an inverse."""


def family_metrics(family: str, *, inverse: bool = False) -> tuple[Metric, ...]:
    """The metrics of a family. inverse: whether the task has an inverse, which a round trip needs."""
    return tuple(metric for metric in FAMILIES[family] if inverse or metric not in ROUND_TRIPS)


def chosen_metrics(
    family: str, listed: Sequence[str] = (), *, inverse: bool = False, where: str | None = None
) -> tuple[Metric, ...]:
    """The metrics of a task: those listed, in that order, or the family's if none is.

    listed: names of metrics of the family or of installed packages (plugins.ExampleMetric); the family's own name
    stands for all of its metrics. where: names the list in a UserError for an unknown metric, or for a package's metric
    that does not load or takes a name or definition of bigchem's.
    """
    everything = family_metrics(family, inverse=inverse)
    known = {metric.name: (metric,) for metric in everything}
    others = plugins.installed() if set(listed) - {family, *known} else {}
    chosen: list[Metric] = []
    for name in listed or (family,):
        if name == family:
            chosen += everything
        elif name in known:
            chosen += known[name]
        elif name in others:
            chosen.append(_of_package(others[name]))
        else:
            unknown("metric", name, [*known, *others], where)
    return tuple(dict.fromkeys(chosen))


def _of_package(entry: EntryPoint) -> Metric:
    metric = plugins.load(entry)
    own = {*HIGHER_IS_BETTER, *DEFINITIONS, LOSS.name, LOSS.definition}
    taken = next((one for one in (metric.name, metric.definition) if one in own), "")
    if taken:
        where = plugins.place(entry)
        raise UserError(f"'{taken}' is bigchem's own: two numbers of one name would be compared", where, "rename it")
    return metric


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """The metrics of a task, in the order of its table. UserError if its record lists an unknown one."""
    inverse = task.inverse is not None and task.target_domain == "reactants"
    return chosen_metrics(task.family, task.metrics, inverse=inverse, where=f"tasks.{task.name}.metrics")


def check_metrics(tasks: Iterable[Task]) -> None:
    """UserError if a task's record lists an unknown metric, or a headline that is none of the task's: before its data
    are built, not once it is evaluated."""
    for task in tasks:
        names = [LOSS.name, *(metric.name for metric in metrics_of(task))]
        if task.headline not in names:
            unknown("metric of the task", task.headline, names, f"tasks.{task.name}.headline")


DEFINITIONS: dict[str, str] = {metric.definition: metric.meaning for metric in chain(*FAMILIES.values())}
"""Definition id -> its meaning."""

HIGHER_IS_BETTER: dict[str, bool] = {metric.name: metric.higher_is_better for metric in chain(*FAMILIES.values())}
"""Of every metric of every family, by name."""

RANGES: dict[str, tuple[float, float]] = {m.name: (m.lowest, m.highest) for m in chain(*FAMILIES.values())}
"""The lowest and the highest value of every metric of every family, by name."""


def higher_is_better(metric: str) -> bool | None:
    """The direction of a metric of any family or of an installed package; None for an unknown one."""
    if metric in HIGHER_IS_BETTER:
        return HIGHER_IS_BETTER[metric]
    entry = plugins.installed().get(metric)
    return None if entry is None else _of_package(entry).higher_is_better
