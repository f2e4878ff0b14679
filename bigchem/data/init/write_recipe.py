"""Writes the recipe that builds some files, after trying it on their first records."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base.atomic import write_atomically
from bigchem.base.errors import UserError
from bigchem.data.build.recipe import BuildConfig, load_recipe
from bigchem.data.init.groups import Group, grouped
from bigchem.data.init.recipe_text import recipe_text, value
from bigchem.data.init.samples import samples
from bigchem.data.init.trial import Trial, lacks_a_split, learnable, limits_for, try_source
from bigchem.data.reading.paths import listed
from bigchem.data.sources.base import SourceConfig
from bigchem.tasks import SPANS

_SEEDS = 10
"""Draws of a split before groups are given up, and then before the split is."""
_BY_HAND = "write the recipe by hand: docs/data.md"


@dataclass(frozen=True)
class Written:
    """A recipe and what it rests on. sources, trials: one per `[[sources]]` table."""

    recipe: Path
    groups: list[Group]
    sources: tuple[SourceConfig, ...]
    trials: list[Trial]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        files = [
            {
                "path": file.path,
                "format": file.format,
                **file.options,
                "records": file.records,
                "whole": file.whole,
                "skipped": file.skipped,
                "columns": {
                    name: {"kind": column.kind, "why": column.why, "unused": group.proposal.unused.get(name)}
                    for name, column in group.columns.items()
                },
            }
            for group in self.groups
            for file in group.files
        ]
        tasks = {task.name: task.record for group in self.groups for task in group.proposal.tasks}
        sources = [
            {**source.model_dump(mode="json", exclude_defaults=True), "tried": trial.to_json()}
            for source, trial in zip(self.sources, self.trials, strict=True)
        ]
        return {"recipe": str(self.recipe), "files": files, "tasks": tasks, "sources": sources}


def write_recipe(paths: Sequence[str], out: Path, *, overwrite: bool = False, to_predict: bool = False) -> Written:
    """Writes a recipe for the files.

    to_predict: unlabelled texts alone are not enough. UserError if `out` exists, if a file cannot be read, or if no
    task is found in it.
    """
    if out.exists() and not overwrite:
        raise UserError("exists", str(out), "choose another file with --out, or --overwrite")
    groups = grouped([sample for path in paths for sample in samples(path)])
    unlabelled = all(task.name in SPANS for group in groups for task in group.proposal.tasks)
    for group in groups:
        if not group.proposal.sources or (to_predict and unlabelled):
            unused = group.proposal.unused
            columns = list(group.columns.values())[:10]
            kinds = "; ".join(f"{column.name}: {unused.get(column.name, column.why)}" for column in columns)
            what = f"no column looks like something to predict from another. {kinds}"
            raise UserError(what, group.files[0].path, _BY_HAND)
    draws: list[dict[str, Any]] = [{"split_seed": seed} if seed else {} for seed in range(_SEEDS)]
    for draw in [*draws, *({**draw, "split_by": "random"} for draw in draws)]:
        config = _config(recipe_text(groups, out, {}, draw), out)
        trials = [try_source(config, source) for source in config.sources]
        if not any(map(lacks_a_split, config.sources, trials)):
            break
    _refuse_hopeless(config, trials)
    write_atomically(out, recipe_text(groups, out, limits_for(config, trials), draw))
    return Written(out, groups, config.sources, trials)


def _refuse_hopeless(config: BuildConfig, trials: list[Trial]) -> None:
    """UserError for a source of which most records cannot be read, empty cells aside, and if the leak filter would drop
    every training row: the guess is wrong."""
    for source, trial in zip(config.sources, trials, strict=True):
        missing = sum(count for reason, count in trial.reasons.items() if reason.startswith("a missing text"))
        if not trial.rows or 2 * (trial.rejected - missing) > trial.records - missing:
            what = f"{trial.rejected:,} of {trial.records:,} records cannot be read as {', '.join(source.tasks)}"
            reason = trial.reasons.most_common(1)[0][0]
            raise UserError(f"{what}: {reason}", " ".join(listed(source.path)), _BY_HAND)
    if not learnable(trials):
        what = f"the sources of {', '.join(config.sources[0].tasks)} have so few values that each is in a held-out row"
        raise UserError(what, " ".join(listed(config.sources[0].path)), _BY_HAND)


def _config(text: str, out: Path) -> BuildConfig:
    """The recipe as a build would read it from `out`."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "recipe.toml"
        file.write_text(text, encoding="utf-8")
        return load_recipe(file, (f"root={value(str(out.resolve().parent))}",))
