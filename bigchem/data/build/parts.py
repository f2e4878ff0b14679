"""A build in parts, by many tasks that share a disk: what is left to do, and the doing of it.

    parse    each task parses every so-manieth chunk of all sources
    choose   one task: repeats, leaks, the tokenizer
    write    each task writes every so-manieth shard
    publish  one task: lengths, index, the name

Each step begins when all of the one before is there. Chunks and shards are files that are there whole or not at all, so
a task that failed is done again alone; what a chunk or a shard holds depends on the recipe alone, so that the result is
that of `build`, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.parse import Part, check_sources, gathered, parse_part
from bigchem.data.build.pipeline import build, is_built, made_file, make_shard
from bigchem.data.build.recipe import BuildConfig, recipe_hash
from bigchem.data.build.select import choose, read_chosen
from bigchem.data.build.work_folder import joined, work_folder
from bigchem.data.build.workers import cores, in_order, pool


@dataclass(frozen=True)
class RemainingParts:
    """What is left of a build. recipe: its hash. parse, write: numbers of the parts. choose: whether rows are to be
    chosen still; then all of `write` is left."""

    recipe: str
    parse: tuple[int, ...]
    choose: bool
    write: tuple[int, ...]


@dataclass(frozen=True)
class PartialBuild:
    """A build that tasks share. out: resolved. recipe: as `Left` tells it. workers: processes of a task; None: as many
    as it has cores."""

    config: BuildConfig
    out: Path
    recipe: str
    workers: int | None = None
    overwrite: bool = False

    def parse(self, part: Part, progress: Progress) -> None:
        """Parses a part of the chunks."""

        def work_in(work: Path) -> None:
            workers = self.workers or cores()
            with pool(workers, str(self.out)) as processes:
                parse_part(self.config, work / "parsed", progress, processes, workers, part)

        self._in_folder(work_in)

    def choose(self, progress: Progress) -> None:
        """Chooses rows, once all parts are parsed."""

        def work_in(work: Path) -> None:
            if read_chosen(work) is None:
                choose(self.config, work, *gathered(self.config, work / "parsed"), progress)

        self._in_folder(work_in)

    def write(self, part: Part, progress: Progress) -> None:
        """Writes a part of the shards."""

        def work_in(work: Path) -> None:
            chosen = read_chosen(work)
            if chosen is None:
                raise UserError("its rows are not chosen yet", str(self.out), "give the command again")
            own = chosen.shards[part.number :: part.of]
            label = f"writing shards, part {part.number + 1} of {part.of}"
            workers = self.workers or cores()
            with pool(workers, str(self.out)) as processes, progress.bar(label, sum(p.rows for p in own)) as bar:
                jobs = [(work, place) for place in own]
                for made in in_order(processes, make_shard, jobs, 2 * workers):
                    bar.advance(made.shard.rows)

        self._in_folder(work_in)

    def publish(self, progress: Progress) -> None:
        """Writes what is left and gives the data its name."""
        if recipe_hash(self.config) != self.recipe:
            raise UserError(
                "the recipe's files have changed since the build began", str(self.out), "give the command again"
            )
        with joined(self.out, self.recipe) as work:
            published = work is None
        if not published:
            build(self.config, self.out, progress, workers=self.workers or cores(), overwrite=self.overwrite)

    def _in_folder(self, function: Callable[[Path], None]) -> None:
        """Nothing is done where the data is published: by a task that Slurm has started again."""
        with joined(self.out, self.recipe) as work:
            if work is not None:
                function(work)


def begin(config: BuildConfig, out: Path, progress: Progress, parts: int, *, overwrite: bool) -> RemainingParts | None:
    """Makes the folder ready in which tasks build `out`; what is left to do, None if that is nothing."""
    recipe = recipe_hash(config)
    if is_built(out, recipe, progress, overwrite=overwrite):
        return None
    every = tuple(range(parts))
    with work_folder(out, recipe, progress) as work:
        chosen = read_chosen(work)
        if chosen is not None:
            left = tuple(
                n for n in every if not all(made_file(work, place).is_file() for place in chosen.shards[n::parts])
            )
            return RemainingParts(recipe, (), False, left)
        check_sources(config)
        return RemainingParts(
            recipe, tuple(n for n in every if not Part(n, parts).file(work / "parsed").is_file()), True, every
        )
