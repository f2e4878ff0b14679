"""`bigchem evaluate`: a run, or a consolidated model on any data; here, or by tasks of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.storage.remote import is_url
from bigchem.data.storage.shards import Data
from bigchem.evaluate.run import (
    Subject,
    begin,
    check,
    evaluate,
    parts_left,
    predict_part,
    refuse_to_discard,
    run_subject,
    score_parts,
)
from bigchem.evaluate.spelling_probe import compare, probe, respelled
from bigchem.export import is_newest, model_folder
from bigchem.launch.cluster.arrays import Step, one_process, refuse_active, run_here, submit_steps, wait
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs.prepare import absolute, folders_of
from bigchem.launch.slurm.options import OneShot
from bigchem.tasks import TASK_NAMES, check_labelled


@dataclass(frozen=True)
class Request:
    """What is to be evaluated. path: a run folder, or a model's, for which `data` has to be given. tasks: of the data;
    empty for all. overrides: of [evaluate]. forward_model: a run folder or a model's, for the round trip of
    retrosynthesis. spellings, probe_seed: of the probe; none: no probe."""

    path: Path
    data: str | None = None
    tasks: tuple[str, ...] = ()
    out: Path | None = None
    overrides: tuple[str, ...] = ()
    forward_model: Path | None = None
    spellings: tuple[str, ...] = ()
    probe_seed: int = 0

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder."""
        return (self.path / "config.toml").is_file()

    @property
    def results(self) -> Path:
        """Where results go."""
        return self.out or self.path / "results"

    def consolidate(self) -> None:
        """Makes a run's model, and the forward model's, if it is not of the newest checkpoint."""
        if self.is_run:
            model_folder(self.path)
        if self.forward_model is not None:
            model_folder(self.forward_model)

    def subject(self) -> tuple[Subject, EvaluateConfig]:
        """What `evaluate` takes; a run is consolidated."""
        if self.is_run:
            config = toml.load(RunConfig, self.path / "config.toml", [f"evaluate.{o}" for o in self.overrides])
            return self._only(run_subject(config, self.path / "model", self.data, self.results)), config.evaluate
        if self.data is None:
            raise UserError("a model's folder does not say which data to use", str(self.path), "add --data FOLDER")
        settings: dict[str, object] = {}
        for override in self.overrides:
            toml.apply_override(settings, override)
        evaluation = toml.validate(EvaluateConfig, settings, "--set")
        opened = Data(self.data)
        rows = opened.index.rows(evaluation.split)
        about = {"run": self.path.name, "mixture": {}, "seed": 0, "step": 0, "tokens": 0}
        tasks = tuple(t for t in TASK_NAMES if t in rows)
        return self._only(Subject(self.path, opened, tasks, self.results, 512, about)), evaluation

    def subjects(self) -> tuple[dict[str, Subject], EvaluateConfig]:
        """What `evaluate` takes: under "" as given, and of each spelling."""
        given, config = self.subject()
        spelled = {spelling: respelled(given, config, spelling, self.probe_seed) for spelling in self.spellings}
        return {"": given} | spelled, config

    def absolute(self) -> Request:
        """The same for a process that runs elsewhere."""
        data = self.data if self.data is None or is_url(self.data) else str(Path(self.data).resolve())
        forward = self.forward_model and self.forward_model.resolve()
        out = self.out and self.out.resolve()
        return replace(self, path=self.path.resolve(), data=data, out=out, forward_model=forward)

    def _only(self, subject: Subject) -> Subject:
        forward = None if self.forward_model is None else model_folder(self.forward_model)
        return replace(subject, tasks=self.tasks or subject.tasks, forward_model=forward)


def evaluate_here(request: Request) -> Path:
    """Evaluates a run folder (consolidated first if it is not yet) or a model folder; the path of results.json, beside
    which a probe has its probe.md."""
    _checked(request).consolidate()
    subjects, config = request.subjects()
    _keep(subjects, config)
    results = evaluate(subjects[""], config)
    if request.spellings:
        probe(subjects[""], config, request.spellings, seed=request.probe_seed, progress=Progress())
    return results


def evaluate_in_tasks(
    request: Request,
    profile: ClusterProfile,
    tasks: int,
    progress: Progress,
    *,
    stay: bool = False,
    options: OneShot | None = None,
) -> Path | None:
    """Evaluates by so many tasks; the path of results.json, or None where tasks on Slurm are queued that stay does not
    ask to be waited for. options: of this submission.

    A task has one process, and one GPU if the profile has any. What an earlier command has predicted is not predicted
    again. UserError, with the tasks and the first one's reason, if any fail.
    """
    request = _checked(request).absolute()
    folder = request.results / "jobs"
    if profile.executor == "slurm":
        refuse_active(folder, str(request.results))
    steps = _steps(request, tasks)
    profile = one_process(profile, gpu=True)
    if profile.executor == "local":
        run_here(steps, profile, folder, progress.say)
    else:
        handed = submit_steps(steps, profile, folder, request.path.name, _mounts(request), options)
        for one in handed:
            progress.say(f"{one.step.name}: {len(one.jobs)} tasks, from job {one.jobs[0].job_id} on; logs in {folder}")
        if not stay:
            return None
        wait(handed, progress.say)
    return request.results / "results.json"


def prepare(request: Request) -> None:
    """A task: consolidates, and begins the folders of predictions."""
    request.consolidate()
    subjects, config = request.subjects()
    _keep(subjects, config)
    for subject in subjects.values():
        check(subject, config)
        begin(subject, config)


def predict(request: Request, spelling: str, number: int, of: int) -> None:
    """A task: one of several parts, as given ("") or of a spelling."""
    subjects, config = request.subjects()
    predict_part(subjects[spelling], config, number, of, Progress())


def score(request: Request) -> None:
    """A task: puts the parts together, and compares the spellings."""
    subjects, config = request.subjects()
    for subject in subjects.values():
        score_parts(subject, config)
    given = subjects.pop("")
    if subjects:
        compare(given, config, subjects, request.probe_seed)


def _checked(request: Request) -> Request:
    for task in request.tasks:
        check_labelled(task, "--task")
    if not request.is_run:
        model_folder(request.path)
        if request.data is None:
            request.subject()  # which refuses it
    return request


def _keep(subjects: dict[str, Subject], config: EvaluateConfig) -> None:
    """Refuses what would remove predictions, before any is."""
    for subject in subjects.values():
        refuse_to_discard(subject, config)


def _steps(request: Request, tasks: int) -> list[Step]:
    """What is left to do: of a model that is consolidated already, only the parts that are missing."""
    every = [(spelling, number) for spelling in ("", *request.spellings) for number in range(tasks)]
    if not request.is_run or is_newest(request.path / "model", request.path):
        subjects, config = request.subjects()
        _keep(subjects, config)
        missing = {spelling: parts_left(subject, config, tasks) for spelling, subject in subjects.items()}
        every = [(spelling, number) for spelling, number in every if number in missing[spelling]]
    steps = [
        Step("prepare", prepare, [(request,)]),
        Step("predict", predict, [(request, spelling, number, tasks) for spelling, number in every]),
        Step("score", score, [(request,)]),
    ]
    return [step for step in steps if step.arguments]


def _mounts(request: Request) -> list[Path]:
    """Folders that a container has to show."""
    found = [request.path, request.results, *([request.forward_model] if request.forward_model else [])]
    if request.is_run:
        found += folders_of(absolute(toml.load(RunConfig, request.path / "config.toml")))
    return found if request.data is None or is_url(request.data) else [*found, Path(request.data)]
