"""`bigchem data build --cluster`: builds a data folder in tasks."""

from pathlib import Path

from bigchem.base.progress import Progress
from bigchem.data.build.parse import Part
from bigchem.data.build.parts import PartialBuild, RemainingParts, begin
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.build.work_folder import jobs_folder, remove_leftovers
from bigchem.data.reading.paths import listed, pattern_folder
from bigchem.data.storage.remote import is_url
from bigchem.launch.cluster.arrays import Step, one_process, refuse_active, run_steps
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
    profile, mounts = one_process(profile, gpu=False), _mounts(config, out)
    done = run_steps(steps, profile, folder, out.name, mounts, progress.say, stay=stay, options=options)
    if done:
        remove_leftovers(out)
    return done


def _steps(build: PartialBuild, left: RemainingParts, tasks: int) -> list[Step]:
    steps = [
        Step("parse", PartialBuild.parse, [(build, Part(number, tasks)) for number in left.parse]),
        Step("choose", PartialBuild.choose, [(build,)] if left.choose else []),
        Step("write", PartialBuild.write, [(build, Part(number, tasks)) for number in left.write]),
        Step("publish", PartialBuild.publish, [(build,)]),
    ]
    return [step for step in steps if step.arguments]


def _mounts(config: BuildConfig, out: Path) -> list[Path]:
    """Folders that a container must mount."""
    named = [name for source in config.sources for path in (source.path, source.target_path) for name in listed(path)]
    t5 = config.tokenizer.t5
    vocabulary = [Path(t5)] if t5 is not None and Path(t5).is_dir() else []
    return [out.parent, *(pattern_folder(name) for name in named if not is_url(name)), *vocabulary]
