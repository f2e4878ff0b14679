"""Transfer between tasks: what adding tasks to a mixture does to the others, with its noise (PURE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bigchem.sweep.analysis.gains import Gain, Of, gain_between
from bigchem.sweep.analysis.trends import LEVEL, holm
from bigchem.sweep.scores.aggregate import Draws, Key, cells_of, size_name
from bigchem.sweep.scores.mixtures import Design, Mixture, shares, steps
from bigchem.sweep.scores.records import LOSS, Score, tasks_of

Matrix = tuple[Design, Of, int]
"""Of one design, of headline metrics or losses, at one size."""


@dataclass(frozen=True)
class Effect:
    """A task's score with other tasks added to its mixture minus its score without, signed so that positive means that
    they help.

    added: one task, or a group of them, as text. without: the smaller mixture. p: of no effect; None if the noise of
    training is unknown. corrected: p by Holm over the effect's matrix. examples: how many times as many examples of the
    task the larger mixture's models had; None: unknown.
    """

    design: Design
    of: Of
    added: str
    without: Mixture
    gain: Gain
    p: float | None
    examples: float | None
    corrected: float | None = None

    @property
    def matrix(self) -> Matrix:
        """Whose family of tests it belongs to."""
        return self.design, self.of, self.gain.parameters

    @property
    def sign(self) -> int:
        """1: what was added helps; -1: it hurts; 0: undecided, after Holm's correction."""
        decided = self.corrected is not None and self.corrected < LEVEL
        return (1 if self.gain.estimate.value > 0 else -1) if decided else 0


def effects_of(scores: Sequence[Score], headline: Mapping[str, str], draws: Draws | None = None) -> tuple[Effect, ...]:
    """The effects of all pairs of mixtures that a design compares, on each task's headline metric and loss.

    The pairwise matrix compares a task alone with the task and one other, the leave-one-out matrix the mixture of all
    tasks with that of all but one, the leave-group-out matrix with that of all but several. Ordered by matrix, then by
    task.
    """
    groups: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.run.parameters, shares(score.run.mixture)), []).append(score)
    tasks = tasks_of(scores)
    cells = {
        place: {(c.task, c.metric): c for c in cells_of(group, tasks, draws) if c.estimate is not None}
        for place, group in groups.items()
    }
    found = []
    for step in steps(score.run.mixture for score in scores):
        for size in sorted({size for size, _ in groups}):
            places = [(size, shares(mixture)) for mixture in (step.larger, step.smaller)]
            both = [cells.get(place, {}) for place in places]
            for of, key in _keys(step.smaller, headline):
                if all(key in side for side in both):
                    gain = gain_between(*(side[key] for side in both))
                    ratio = _examples(key[0], *(groups[place] for place in places))
                    found.append(Effect(step.design, of, step.added, step.smaller, gain, gain.p, ratio))
    order = {name: place for place, name in enumerate(tasks)}
    designs = list(DESIGNS)
    found.sort(
        key=lambda e: (designs.index(e.design), e.of, e.gain.parameters, order[e.gain.task], order.get(e.added, 0))
    )
    return _corrected(found)


def _keys(mixture: Mixture, headline: Mapping[str, str]) -> list[tuple[Of, Key]]:
    found: list[tuple[Of, Key]] = []
    for task in mixture:
        if task in headline and headline[task] != LOSS:
            found.append(("headline", (task, headline[task])))
        found.append(("loss", (task, LOSS)))
    return found


def _examples(task: str, larger: Sequence[Score], smaller: Sequence[Score]) -> float | None:
    means = []
    for scores in (larger, smaller):
        counts = [(s.run.training.examples or {}).get(task) if s.run.training else None for s in scores]
        known = [count for count in counts if count]
        if len(known) < len(counts):
            return None
        means.append(sum(known) / len(known))
    return means[0] / means[1]


def _corrected(effects: Sequence[Effect]) -> tuple[Effect, ...]:
    found: list[Effect] = []
    for matrix in dict.fromkeys(effect.matrix for effect in effects):
        own = [effect for effect in effects if effect.matrix == matrix]
        corrected = holm({(e.gain.task, e.added): e.p for e in own if e.p is not None})
        found += [replace(e, corrected=corrected.get((e.gain.task, e.added))) for e in own]
    return tuple(found)


DESIGNS: dict[Design, str] = {
    "pair": "Added to one task, another task",
    "leave-one-out": "Added to all the others, a task",
    "leave-group-out": "Added to all the others, a group of tasks",
}


def transfer_sentences(effects: Sequence[Effect]) -> list[str]:
    """One for each design and size, on headline metrics."""
    found = []
    for matrix in dict.fromkeys(effect.matrix for effect in effects if effect.of == "headline"):
        own = [effect for effect in effects if effect.matrix == matrix]
        text = f"{DESIGNS[matrix[0]]} at {size_name(matrix[2])}"
        if all(effect.p is None for effect in own):
            found.append(f"{text} has effects on headline metrics that one seed cannot decide.")
            continue
        counts = [sum(effect.sign == sign for effect in own) for sign in (1, -1, 0)]
        found.append(
            f"{text} helps in {counts[0]}, hurts in {counts[1]} and is undecided in {counts[2]} of {len(own)} cases "
            "(headline metrics, Holm's correction over the matrix)."
        )
    return found
