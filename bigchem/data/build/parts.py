"""A build in parts, by the tasks of a job array that share a disk.

    parse    task n of N parses every Nth chunk of all sources
    choose   one task: duplicates, leaks, the tokenizer
    write    task n of N writes every Nth shard
    publish  one task: lengths, index, the rename

A step starts when the one before is complete. Chunk and shard files are written completely or not at all, so a failed
task can be repeated alone. Their content depends only on the recipe, so the result equals that of `build`, to the byte.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.parse import Part, check_sources, gathered, parse_part
from bigchem.data.build.pipeline import build, is_built, made_file, make_shard, shard_jobs
from bigchem.data.build.recipe import BuildConfig, recipe_hash
from bigchem.data.build.select import choose, read_chosen
from bigchem.data.build.work_folder import joined, work_folder
from bigchem.data.build.workers import cores, in_order, pool


@dataclass(frozen=True)
class RemainingParts:
    """What remains of a build. recipe: its hash. parse, write: numbers of the parts. choose: whether rows are still to
    be chosen; then all of `write` remains."""

    recipe: str
    parse: tuple[int, ...]
    choose: bool
    write: tuple[int, ...]


@dataclass(frozen=True)
class PartialBuild:
    """A build shared by several tasks. out: resolved. recipe: its hash, see RemainingParts. workers: processes per
    task; None: one per core."""

    config: BuildConfig
    out: Path
    recipe: str
    workers: int | None = None
    overwrite: bool = False

    def parse(self, part: Part, progress: Progress | None = None) -> None:
        """Parses a part of the chunks."""

        def work_in(work: Path) -> None:
            workers = self.workers or cores()
            with pool(workers, str(self.out)) as processes:
                parse_part(self.config, work / "parsed", progress or Progress(), processes, workers, part)

        self._in_folder(work_in)

    def choose(self, progress: Progress | None = None) -> None:
        """Chooses rows, once all parts are parsed."""

        def work_in(work: Path) -> None:
            if read_chosen(work) is None:
                choose(self.config, work, *gathered(self.config, work / "parsed"), progress or Progress())

        self._in_folder(work_in)

    def write(self, part: Part, progress: Progress | None = None) -> None:
        """Writes a part of the shards."""

        def work_in(work: Path) -> None:
            chosen = read_chosen(work)
            if chosen is None:
                raise UserError("its rows are not chosen yet", str(self.out), "repeat the command")
            own = chosen.shards[part.number :: part.of]
            label = f"writing shards, part {part.number + 1} of {part.of}"
            workers = self.workers or cores()
            jobs = shard_jobs(work, own, self.config.known_tasks)
            total = sum(planned.rows * len(task.prompts) for _, planned, task in jobs)
            with pool(workers, str(self.out)) as processes, (progress or Progress()).bar(label, total) as bar:
                for made in in_order(processes, make_shard, jobs, 2 * workers):
                    bar.advance(made.shard.rows)

        self._in_folder(work_in)

    def publish(self, progress: Progress | None = None) -> None:
        """Writes what remains and renames the data into place."""
        if recipe_hash(self.config) != self.recipe:
            raise UserError(
                "the recipe's files have changed since the build began", str(self.out), "repeat the command"
            )
        with joined(self.out, self.recipe) as work:
            published = work is None
        if not published:
            workers, progress = self.workers or cores(), progress or Progress()
            build(self.config, self.out, progress, workers=workers, overwrite=self.overwrite)

    def _in_folder(self, function: Callable[[Path], None]) -> None:
        """Does nothing if the data is already published: Slurm may restart a task."""
        with joined(self.out, self.recipe) as work:
            if work is not None:
                function(work)


def begin(config: BuildConfig, out: Path, progress: Progress, parts: int, *, overwrite: bool) -> RemainingParts | None:
    """Prepares the work folder in which tasks build `out`. Returns what remains to be done; None: nothing."""
    recipe = recipe_hash(config)
    if is_built(out, config, recipe, progress, overwrite=overwrite):
        return None
    every = tuple(range(parts))
    with work_folder(out, recipe, progress) as work:
        chosen = read_chosen(work)
        if chosen is not None:
            left = tuple(
                n for n in every if not all(made_file(work, planned).is_file() for planned in chosen.shards[n::parts])
            )
            return RemainingParts(recipe, (), False, left)
        check_sources(config)
        return RemainingParts(
            recipe, tuple(n for n in every if not Part(n, parts).file(work / "parsed").is_file()), True, every
        )
