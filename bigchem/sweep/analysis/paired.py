"""Gains from predictions of the same examples, so that difficulty common to both models cancels."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.evaluate.compare import Difference, compare_files
from bigchem.sweep.analysis.fit import Estimate
from bigchem.sweep.analysis.gains import PairKey
from bigchem.sweep.analysis.records import REGIMES, Regime, Results, Run
from bigchem.sweep.analysis.score_table import RESAMPLES

Recorded = Mapping[tuple[int, str, str], float]
"""(id of the run, task, metric) -> value."""
_SAME = 1e-6
"""Rescored values may differ from the recorded ones by rounding only."""


def paired_differences(results: Results, progress: Progress) -> tuple[dict[PairKey, Estimate], tuple[str, ...]]:
    """together - alone of every metric, with paired-bootstrap intervals, where both runs' predictions are available.

    A pair is skipped if its files hold different examples or no longer score as recorded; the notes name it.
    """
    cells: dict[tuple[str, int, int], dict[Regime, list[Run]]] = {}
    for run in results.runs:
        for task in run.predictions:
            regimes = cells.setdefault((task, run.parameters, run.seed), {regime: [] for regime in REGIMES})
            regimes[run.regime].append(run)
    pairs = {key: found for key, found in cells.items() if all(len(runs) == 1 for runs in found.values())}
    recorded = {(id(s.run), s.task, s.metric): s.estimate.value for s in results.scores if s.estimate is not None}
    found: dict[PairKey, Estimate] = {}
    notes: list[str] = []
    if not pairs:
        return found, ()
    with progress.bar("comparing predictions, together against alone", len(pairs)) as bar:
        for (task, parameters, seed), runs in pairs.items():
            together, alone = runs["together"][0], runs["alone"][0]
            pair = f"{task}, {together.name} and {alone.name}"
            try:
                differences = _compare(task, together, alone)
            except UserError as error:
                notes.append(f"Compared as independent: {pair}: {error.what}.")
            else:
                confirmed, changed = _checked(differences, together, alone, recorded)
                found |= {(task, metric, parameters, seed): estimate for metric, estimate in confirmed.items()}
                if changed:
                    names = ", ".join(changed)
                    notes.append(f"Compared as independent, because they no longer score as recorded: {pair}: {names}.")
            bar.advance()
    return found, tuple(notes)


def _compare(task: str, together: Run, alone: Run) -> list[Difference]:
    files = (Path(run.predictions[task]) for run in (alone, together))
    return compare_files(together.tasks[task], *files, bootstrap=RESAMPLES, workers=os.cpu_count() or 1)


def _checked(
    differences: list[Difference], together: Run, alone: Run, recorded: Recorded
) -> tuple[dict[str, Estimate], list[str]]:
    confirmed, changed = {}, []
    for d in differences:
        sides = [recorded.get((id(run), d.task, d.metric)) for run in (alone, together)]
        if d.difference is None or d.low is None or None in sides:
            continue
        scored = zip((d.first, d.second), sides, strict=True)
        if all(math.isclose(a or 0.0, b or 0.0, rel_tol=_SAME, abs_tol=_SAME) for a, b in scored):
            confirmed[d.metric] = Estimate(d.difference, d.low, d.high)
        else:
            changed.append(d.metric)
    return confirmed, changed
