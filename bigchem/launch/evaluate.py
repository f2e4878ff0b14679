"""`bigchem evaluate`: a run, or a consolidated model on any data; here, or by tasks of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bigchem import strict
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.remote import is_url
from bigchem.data.shards import Data
from bigchem.errors import UserError
from bigchem.evaluate.probe import probe
from bigchem.evaluate.run import (
    Subject,
    begin,
    check,
    evaluate,
    parts_left,
    predict_part,
    run_subject,
    score_parts,
)
from bigchem.export import is_newest, model_folder
from bigchem.launch.arrays import Step, hand_over, one_process, refuse_active, run_here, wait
from bigchem.launch.cluster import ClusterProfile
from bigchem.launch.runfolder import absolute, folders_of
from bigchem.progress import Progress
from bigchem.tasks import TASK_NAMES, check_labelled


@dataclass(frozen=True)
class Request:
    """What is to be evaluated. path: a run folder, or a model's, for which `data` has to be given. tasks: of the data;
    empty for all. overrides: of [evaluate]. forward_model: a run folder or a model's, for the round trip of
    retrosynthesis."""

    path: Path
    data: str | None = None
    tasks: tuple[str, ...] = ()
    out: Path | None = None
    overrides: tuple[str, ...] = ()
    forward_model: Path | None = None

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
            config = strict.load(RunConfig, self.path / "config.toml", [f"evaluate.{o}" for o in self.overrides])
            return self._only(run_subject(config, self.path / "model", self.data, self.results)), config.evaluate
        if self.data is None:
            raise UserError("a model's folder does not say which data to use", str(self.path), "add --data FOLDER")
        settings: dict[str, object] = {}
        for override in self.overrides:
            strict.apply_override(settings, override)
        evaluation = strict.validate(EvaluateConfig, settings, "--set")
        opened = Data(self.data)
        rows = opened.index.rows(evaluation.split)
        about = {"run": self.path.name, "mixture": {}, "seed": 0, "step": 0, "tokens": 0}
        tasks = tuple(t for t in TASK_NAMES if t in rows)
        return self._only(Subject(self.path, opened, tasks, self.results, 512, about)), evaluation

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
    """Evaluates a run folder (consolidated first if it is not yet) or a model folder; the path of results.json."""
    _checked(request).consolidate()
    return evaluate(*request.subject())


def probe_here(request: Request, spellings: tuple[str, ...], seed: int) -> Path:
    """After evaluate_here: the same with other spellings; the path of probe.md."""
    subject, config = request.subject()
    return probe(subject, config, spellings, seed=seed, progress=Progress())


def evaluate_in_tasks(
    request: Request, profile: ClusterProfile, tasks: int, progress: Progress, *, stay: bool = False
) -> Path | None:
    """Evaluates by so many tasks; the path of results.json, or None where tasks on Slurm are queued that stay does not
    ask to be waited for.

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
        handed = hand_over(steps, profile, folder, request.path.name, _mounts(request))
        for one in handed:
            progress.say(f"{one.step.name}: {len(one.jobs)} tasks, from job {one.jobs[0].job_id} on; logs in {folder}")
        if not stay:
            return None
        wait(handed, progress.say)
    return request.results / "results.json"


def prepare(request: Request) -> None:
    """A task: consolidates, and begins the folder of predictions."""
    request.consolidate()
    subject, config = request.subject()
    check(subject, config)
    begin(subject, config)


def predict(request: Request, number: int, of: int) -> None:
    """A task: one of several parts."""
    predict_part(*request.subject(), number, of, Progress())


def score(request: Request) -> None:
    """A task: puts the parts together."""
    score_parts(*request.subject())


def _checked(request: Request) -> Request:
    for task in request.tasks:
        check_labelled(task, "--task")
    if not request.is_run and request.data is None:
        request.subject()  # which refuses it
    return request


def _steps(request: Request, tasks: int) -> list[Step]:
    """What is left to do: of a model that is consolidated already, only the parts that are missing."""
    left = list(range(tasks))
    if not request.is_run or is_newest(request.path / "model", request.path):
        left = parts_left(*request.subject(), tasks)
    steps = [
        Step("prepare", prepare, [(request,)]),
        Step("predict", predict, [(request, number, tasks) for number in left]),
        Step("score", score, [(request,)]),
    ]
    return [step for step in steps if step.arguments]


def _mounts(request: Request) -> list[Path]:
    """Folders that a container has to show."""
    found = [request.path, request.results, *([request.forward_model] if request.forward_model else [])]
    if request.is_run:
        found += folders_of(absolute(strict.load(RunConfig, request.path / "config.toml")))
    return found if request.data is None or is_url(request.data) else [*found, Path(request.data)]
