"""A build in parts equals a build by one process, to the byte, whatever is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import files_of

from bigchem.base.errors import UserError
from bigchem.base.file_lock import lock
from bigchem.base.progress import Progress
from bigchem.data.build.parse import Part
from bigchem.data.build.parts import PartialBuild, RemainingParts, begin
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.sources.base import SourceConfig

QUIET = Progress(quiet=True)
SOURCES = (
    SourceConfig(format="synthetic", split="train", rows=2300, seed=1),
    SourceConfig(format="synthetic", split="test", rows=60, seed=2),
)
CONFIG = BuildConfig(sources=SOURCES, shard_rows=150)
"""Chunks have 1,000 records: of three parts, one gets two of the four chunks."""


def left(out: Path, parts: int = 3) -> RemainingParts | None:
    return begin(CONFIG, out, QUIET, parts, overwrite=False)


def test_parts_that_are_lost_and_done_again_make_the_bytes_of_one_process(tmp_path: Path) -> None:
    out, work = tmp_path / "parts", tmp_path / ".parts.partial"
    assert left(out) == RemainingParts(str(recipe_of(out)), (0, 1, 2), True, (0, 1, 2))
    task = PartialBuild(CONFIG, out, recipe_of(out), 1)
    for number in (2, 0):
        task.parse(Part(number, 3), QUIET)
    parsed = {path: path.stat().st_mtime_ns for path in work.glob("parsed/*.arrow")}
    again = left(out)
    assert again is not None
    assert again.parse == (1,)
    task.parse(Part(1, 3), QUIET)
    assert {path: path.stat().st_mtime_ns for path in parsed} == parsed
    task.choose(QUIET)
    task.write(Part(1, 3), QUIET)
    assert left(out) == RemainingParts(task.recipe, (), False, (0, 2))
    for number in (0, 2):
        task.write(Part(number, 3), QUIET)
    assert left(out) == RemainingParts(task.recipe, (), False, ())
    made = {path: path.stat().st_mtime_ns for path in work.glob("made/*/*.npz")}
    assert len(made) > 6
    assert not out.exists()
    task.publish(QUIET)
    build(CONFIG, tmp_path / "one", QUIET, workers=1)
    assert files_of(out) == files_of(tmp_path / "one")
    assert left(out) is None
    task.write(Part(0, 3), QUIET)  # a task that Slurm restarts late
    task.publish(QUIET)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def recipe_of(out: Path) -> str:
    return (out.with_name(f".{out.name}.partial") / "recipe").read_text().split()[0]


def test_tasks_and_a_build_by_itself_keep_out_of_each_others_way(tmp_path: Path) -> None:
    out = tmp_path / "data"
    left(out)
    task = PartialBuild(CONFIG, out, recipe_of(out), 1)
    with (tmp_path / ".data.partial" / "lock").open("a+b") as handle:
        assert lock(handle, shared=True)
        with pytest.raises(UserError, match="another build is writing it"):
            build(CONFIG, out, QUIET, workers=1)
    with (tmp_path / ".data.partial" / "lock").open("a+b") as handle:
        assert lock(handle)
        with pytest.raises(UserError, match="another build is writing it"):
            task.choose(QUIET)
    (tmp_path / ".data.partial" / "recipe").write_text("another\n")
    with pytest.raises(UserError, match="another recipe, code or library"):
        task.choose(QUIET)
