"""`bigchem data build --cluster`: builds a data folder in tasks."""

from __future__ import annotations

from pathlib import Path

from bigchem.base.progress import Progress
from bigchem.data.build.parse import Part
from bigchem.data.build.parts import PartialBuild, RemainingParts, begin
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.build.work_folder import jobs_folder, remove_leftovers
from bigchem.data.reading.paths import listed, pattern_folder
from bigchem.data.storage.remote import is_url
from bigchem.launch.cluster.arrays import Step, one_process, refuse_active, run_here, submit_steps, wait
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.slurm.options import OneShot


def build_in_tasks(
    config: BuildConfig,
    out: Path,
    profile: ClusterProfile,
    tasks: int,
    progress: Progress,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    stay: bool = False,
    options: OneShot | None = None,
) -> bool:
    """Builds `out` in so many tasks; returns whether it is built now. On Slurm the tasks are queued; stay: wait for
    them. options: for this submission.

    A task gets all cores of one of the profile's nodes. Work that an earlier command has done is not repeated. If tasks
    fail, the UserError names them and the first one's reason.
    """
    out, folder = out.resolve(), jobs_folder(out.resolve())
    if profile.executor == "slurm":
        refuse_active(folder, str(out))
    left = begin(config, out, progress, tasks, overwrite=overwrite)
    if left is None:
        return True
    steps = _steps(PartialBuild(config, out, left.recipe, workers, overwrite), left, tasks)
    profile = one_process(profile, gpu=False)
    if profile.executor == "local":
        run_here(steps, profile, folder, progress.say)
    else:
        submitted = submit_steps(steps, profile, folder, out.name, _mounts(config, out), options)
        for s in submitted:
            progress.say(f"{s.step.name}: {len(s.jobs)} tasks, from job {s.jobs[0].job_id} on; logs in {folder}")
        if not stay:
            return False
        wait(submitted, progress.say)
    remove_leftovers(out)
    return True


def parse(build: PartialBuild, number: int, of: int) -> None:
    """A task: see PartialBuild."""
    build.parse(Part(number, of), Progress())


def choose(build: PartialBuild) -> None:
    """A task: see PartialBuild."""
    build.choose(Progress())


def write(build: PartialBuild, number: int, of: int) -> None:
    """A task: see PartialBuild."""
    build.write(Part(number, of), Progress())


def publish(build: PartialBuild) -> None:
    """A task: see PartialBuild."""
    build.publish(Progress())


def _steps(build: PartialBuild, left: RemainingParts, tasks: int) -> list[Step]:
    steps = [
        Step("parse", parse, [(build, number, tasks) for number in left.parse]),
        Step("choose", choose, [(build,)] if left.choose else []),
        Step("write", write, [(build, number, tasks) for number in left.write]),
        Step("publish", publish, [(build,)]),
    ]
    return [step for step in steps if step.arguments]


def _mounts(config: BuildConfig, out: Path) -> list[Path]:
    """Folders that a container must mount."""
    named = [name for source in config.sources for path in (source.path, source.target_path) for name in listed(path)]
    t5 = config.tokenizer.t5
    vocabulary = [Path(t5)] if t5 is not None and Path(t5).is_dir() else []
    return [out.parent, *(pattern_folder(name) for name in named if not is_url(name)), *vocabulary]
