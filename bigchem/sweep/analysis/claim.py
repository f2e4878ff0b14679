"""The first sentences of a report: whether sharing helps more as models grow, over all metrics (PURE)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from bigchem.evaluate.protocol.names import written
from bigchem.sweep.analysis.gains import KINDS, Kind, kind_of
from bigchem.sweep.analysis.trends import FALLING, RISING, Trend, Verdict
from bigchem.sweep.scores.aggregate import Key
from bigchem.sweep.scores.records import LOSS
from bigchem.tasks import Tasks

NAMED = 4
"""At most this many metrics are named one by one."""
PHRASES: dict[Verdict, str] = {
    "gain grows": "the gain grows in {}",
    "cost shrinks": "a cost of sharing shrinks in {}",
    "rises": "the gain rises, without being certain at the largest size, in {}",
    "gain shrinks": "the gain shrinks in {}",
    "cost grows": "a cost of sharing grows in {}",
    "falls": "the gain falls, without being certain at the largest size, in {}",
    "peaks": "the gain is highest or lowest at a middle size in {}",
    "one scale": "a trend depends on the scale, as near a ceiling or a floor, in {}",
    "undecided": "no trend is decided in {}",
}


def claim(trends: Mapping[Key, Trend], tasks: Tasks, untrained: bool, chosen: Collection[Key] = ()) -> str:
    """What the trends of all metrics say of each kind of task. untrained: no task was trained both ways at one size.
    chosen: metrics chosen by hand, which the report draws and pools."""
    if untrained:
        return "Nothing can be said about sharing: no task was trained both together and alone at one size."
    if not trends:
        return (
            "Whether the gain of sharing grows with model size cannot be said: no metric was measured both ways at two "
            "sizes."
        )
    # Losses have a pool of their own, chosen or not.
    pooled = "Drawn" if all(metric == LOSS for _, metric in chosen) else "Drawn and pooled"
    first = f"{pooled} are metrics chosen by hand ({joined(list(map(name_of, chosen)))}). " if chosen else ""
    parts = [_of_kind(kind, trends, tasks) for kind in KINDS]
    tested = [trend for trend in trends.values() if trend.p is not None]
    if not tested:
        return f"{first}{' '.join(parts)} The training noise is unknown: train several seeds, or three sizes."
    up, down = (sum(t.uncorrected in kinds for t in tested) for kinds in (RISING, FALLING))
    family = f"Holm's correction over {_number(len(tested), 'test')}; without it {up} rise and {down} fall"
    return f"{first}{' '.join(parts)} ({family}.)"


def _of_kind(kind: Kind, trends: Mapping[Key, Trend], tasks: Tasks) -> str:
    own = {key: trend for key, trend in trends.items() if kind_of(tasks[key[0]]) == kind}
    if not own:
        return f"Nothing can be said about {kind} tasks."
    verdicts = {key: trend.verdict for key, trend in own.items()}
    names = joined(list(dict.fromkeys(task for task, _ in own)))
    found = ", ".join(
        text.format(_which(verdict, verdicts)) for verdict, text in PHRASES.items() if verdict in verdicts.values()
    )
    two = " (from two sizes)" if max(trend.sizes for trend in own.values()) == 2 else ""
    return (
        f"For {kind} tasks ({names}), {_summary(verdicts)}{two}: of {_number(len(own), 'metric')}, {found}"
        f"{_losses(verdicts)}{_conflict(verdicts)}."
    )


def _which(verdict: Verdict, verdicts: Mapping[Key, Verdict]) -> str:
    """The number of metrics with a verdict; with their names, if they are a few of several."""
    own = [name_of(key) for key, found in verdicts.items() if found == verdict]
    few = verdict != "undecided" and len(own) <= NAMED and len(own) < len(verdicts)
    return f"{len(own)} ({joined(own)})" if few else str(len(own))


def _summary(verdicts: Mapping[Key, Verdict]) -> str:
    """In one clause; "most" is more than half of all metrics."""
    counts, half = Counter(verdicts.values()), len(verdicts) / 2
    up, down = (sum(counts[v] for v in kinds) for kinds in (RISING, FALLING))
    if up and down:
        return (
            "metrics contradict each other about the gain of sharing, which rises with model size in "
            f"{up} and falls in {down}"
        )
    if counts["gain grows"] > half:
        return "sharing helps more as models grow"
    if up and not counts["gain grows"]:
        what = "cost of sharing shrinks" if counts["cost shrinks"] == up else "gain of sharing rises"
        return f"the {what} with model size in {_share(up, half)}"
    if up:
        return "sharing helps more as models grow in some metrics"
    if down:
        return f"the gain of sharing falls with model size in {_share(down, half)}"
    return "no growth of the gain of sharing with model size is shown"


def _share(count: int, half: float) -> str:
    return "most metrics" if count > half else "some metrics"


def _losses(verdicts: Mapping[Key, Verdict]) -> str:
    losses = [verdict for (_, metric), verdict in verdicts.items() if metric == LOSS]
    up, down = (sum(v in kinds for v in losses) for kinds in (RISING, FALLING))
    if not losses or len(losses) == len(verdicts):
        return ""
    if len(losses) == 1:
        return f"; the gain in the loss {'rises' if up else 'falls' if down else 'is undecided'}"
    return f"; of the gains in {len(losses)} losses, {up} rise and {down} fall"


def _conflict(verdicts: Mapping[Key, Verdict]) -> str:
    """Where some rise and some fall: names some of the fewer, unless all of them are named already."""
    sides = [[key for key, v in verdicts.items() if v in kinds] for kinds in (RISING, FALLING)]
    fewer = min(sides, key=len)
    if len(fewer) <= NAMED:
        return ""
    shown = ", ".join(map(name_of, fewer[:NAMED]))
    return f"; {'rising' if fewer is sides[0] else 'falling'}: {shown} and {len(fewer) - NAMED} more"


def name_of(key: Key) -> str:
    """captioning BLEU-4."""
    return f"{key[0]} {written(key[1])}"


def joined(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
