"""Reads the first records of each source as the build would, before the recipe is written."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from bigchem.data.build.lossy import count_lossy
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.build.splits import rows_by_split, shares
from bigchem.data.sources import reader
from bigchem.data.sources.base import RowError, SourceConfig

TRIED = 1000
"""Records of each source that are read."""
_REJECTED, _LOSSY = 0.05, 0.01
"""The limits of a build, unless the recipe sets others."""


@dataclass(frozen=True)
class Trial:
    """What reading the first records of a source gave. rows: by task. texts: by split and by task and side. whole:
    whether these were all records."""

    records: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    whole: bool = True
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """All but the texts."""
        return {name: found for name, found in vars(self).items() if name != "texts"}


def try_source(config: BuildConfig, source: SourceConfig) -> Trial:
    """Reads the first records of a source of a recipe."""
    found = Trial()
    records = rejected = 0
    for record in islice(reader(source.format).records(source, config.known_tasks), TRIED + 1):
        if records == TRIED:
            return replace(found, records=records, rejected=rejected, whole=False)
        records += 1
        try:
            for row, split in rows_by_split(record, source, config.known_tasks):
                found.rows[row.task] += 1
                found.splits[split] += 1
                for side, text in (("source", row.source), ("target", row.target)):
                    found.texts.setdefault((split, f"{row.task} {side}"), []).append(text)
        except RowError as error:
            rejected += 1
            found.reasons[str(error).split(" '")[0]] += 1
    return replace(found, records=records, rejected=rejected)


def lacks_a_split(source: SourceConfig, trial: Trial) -> bool:
    """Whether a split that the source asks for has no rows, as far as can be told."""
    return trial.whole and any(share > 0 and not trial.splits[split] for split, share in shares(source).items())


def learnable(trials: list[Trial]) -> bool:
    """Whether any training row has a source that no held-out row of its task has, as far as can be told."""
    by_split: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for trial in trials:
        for (split, side), texts in trial.texts.items():
            if side.endswith(" source"):
                by_split[split == "train"].update((side, text) for text in texts)
    return bool(by_split[True] - by_split[False]) or not all(trial.whole for trial in trials)


def limits_for(config: BuildConfig, trials: list[Trial]) -> dict[str, tuple[Any, str]]:
    """Limits of the build that these files exceed, raised, and why."""
    found: dict[str, tuple[Any, str]] = {}
    share, trial = max(((t.rejected / max(1, t.records), t) for t in trials), key=lambda pair: pair[0])
    if share > 0.8 * _REJECTED:
        reason = trial.reasons.most_common(1)[0][0]
        why = f"of {trial.records:,} records {trial.rejected:,} cannot be read, most for this reason: {reason}"
        found["max_rejected"] = min(1.0, math.ceil(100 * share + 5) / 100), why
    side, lost = _lossy(config, trials)
    if lost > 0.8 * _LOSSY:
        why = f"{lost:.1%} of {side} texts have characters that no training row has: give more rows, or T5's vocabulary"
        found["max_lossy"] = min(1.0, math.ceil(100 * lost + 2) / 100), why
    return found


def _lossy(config: BuildConfig, trials: list[Trial]) -> tuple[str, float]:
    """The task and side of which the largest share of texts does not survive a vocabulary of the training rows."""
    training = [prompt for trial in trials for task in trial.rows for prompt in config.known_tasks[task].prompts]
    every: dict[str, list[str]] = {}
    for trial in trials:
        for (split, side), texts in trial.texts.items():
            every.setdefault(side, []).extend(texts)
            training += texts if split == "train" else []
    tokenizer = config.tokenizer.make(training)
    shares = {side: count_lossy(tokenizer, texts, tokenizer.encode_batch(texts)).share for side, texts in every.items()}
    return max(shares.items(), key=lambda pair: pair[1], default=("", 0.0))
