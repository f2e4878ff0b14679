"""`bigchem evaluate`: evaluates a run, or a consolidated model on any data, here or in tasks on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.storage.remote import is_url
from bigchem.evaluate.run import begin, evaluate, parts_left, predict_part, refuse_to_discard, score_parts
from bigchem.evaluate.spelling_probe import compare, probe, respelled
from bigchem.evaluate.subject import Subject, check, model_subject, run_subject
from bigchem.export import is_newest, model_folder
from bigchem.launch.cluster.arrays import Step, one_process, refuse_active, run_steps
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs.prepare import absolute, folders_of
from bigchem.launch.slurm.options import OneShot
from bigchem.sharing.card import after_evaluation


@dataclass(frozen=True)
class Request:
    """What to evaluate. path: a run folder, or a model folder, which needs `data`. tasks: of the data; empty: all.
    overrides: of [evaluate]. forward_model: a run folder or model folder, for retrosynthesis round trips. spellings,
    probe_seed: of the probe; without spellings there is none."""

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
    def model_dir(self) -> Path:
        """The consolidated model."""
        return self.path / "model" if self.is_run else self.path

    @property
    def results(self) -> Path:
        """Where results go."""
        return self.out or self.path / "results"

    def consolidate(self) -> None:
        """Consolidates the run and the forward model, if their models are not from the newest checkpoint."""
        if self.is_run:
            model_folder(self.path)
        if self.forward_model is not None:
            model_folder(self.forward_model)

    def subject(self) -> tuple[Subject, EvaluateConfig]:
        """The arguments of `evaluate`; a run must be consolidated."""
        if self.is_run:
            config = toml.load(RunConfig, self.path / "config.toml", [f"evaluate.{o}" for o in self.overrides])
            return self._only(run_subject(config, self.model_dir, self.data, self.results)), config.evaluate
        if self.data is None:
            raise UserError("a model folder does not say which data to use", str(self.path), "add --data FOLDER")
        settings: dict[str, object] = {}
        for override in self.overrides:
            toml.apply_override(settings, override)
        evaluation = toml.validate(EvaluateConfig, settings, "--set")
        return self._only(model_subject(self.path, self.data, self.results, evaluation)), evaluation

    def subjects(self) -> tuple[dict[str, Subject], EvaluateConfig]:
        """The same for each spelling; "": the inputs as given."""
        given, config = self.subject()
        spelled = {spelling: respelled(given, config, spelling, self.probe_seed) for spelling in self.spellings}
        return {"": given} | spelled, config

    def absolute(self) -> Request:
        """The same with absolute paths, for a process that runs elsewhere."""
        data = self.data if self.data is None or is_url(self.data) else str(Path(self.data).resolve())
        forward = self.forward_model and self.forward_model.resolve()
        out = self.out and self.out.resolve()
        return replace(self, path=self.path.resolve(), data=data, out=out, forward_model=forward)

    def _only(self, subject: Subject) -> Subject:
        forward = None if self.forward_model is None else model_folder(self.forward_model)
        for task in self.tasks:
            subject.data.tasks.labelled(task, "--task")
        return replace(subject, tasks=self.tasks or subject.tasks, forward_model=forward)


def evaluate_here(request: Request) -> Path:
    """Evaluates a run folder (consolidated first if needed) or a model folder; returns the path of results.json. A
    probe writes probe.md beside it."""
    _checked(request).consolidate()
    subjects, config = request.subjects()
    _refuse_to_discard(subjects, config)
    results = evaluate(subjects[""], config)
    _tell(request, results)
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
    """Evaluates in so many tasks; returns the path of results.json, or None if the tasks are queued on Slurm and stay
    does not say to wait for them. options: for this submission.

    A task has one process, and one GPU if the profile has any. Predictions of an earlier command are reused. If tasks
    fail, the UserError names them and the first one's reason.
    """
    request = _checked(request).absolute()
    folder = request.results / "jobs"
    if profile.executor == "slurm":
        refuse_active(folder, str(request.results))
    steps = _steps(request, tasks)
    profile, name, mounts = one_process(profile, gpu=True), request.path.name, _mounts(request)
    done = run_steps(steps, profile, folder, name, mounts, progress.say, stay=stay, options=options)
    return request.results / "results.json" if done else None


def prepare(request: Request) -> None:
    """A task: consolidates, and creates the prediction folders."""
    request.consolidate()
    subjects, config = request.subjects()
    _refuse_to_discard(subjects, config)
    for subject in subjects.values():
        check(subject, config)
        begin(subject, config)


def predict(request: Request, spelling: str, number: int, of: int) -> None:
    """A task: predicts one of several parts, as given ("") or for a spelling."""
    subjects, config = request.subjects()
    predict_part(subjects[spelling], config, number, of, Progress())


def score(request: Request) -> None:
    """A task: scores the parts together, and compares the spellings."""
    subjects, config = request.subjects()
    for spelling, subject in subjects.items():
        results = score_parts(subject, config)
        if not spelling:
            _tell(request, results)
    given = subjects.pop("")
    if subjects:
        compare(given, config, subjects, request.probe_seed)


def _tell(request: Request, results: Path) -> None:
    """Puts the scores into the model's card, if they went to where they belong: --out is for other settings."""
    if request.out is None and (left := after_evaluation(request.model_dir, results)) is not None:
        Progress().say(left)


def _checked(request: Request) -> Request:
    if not request.is_run:
        model_folder(request.path)
        if request.data is None:
            request.subject()  # raises
    return request


def _refuse_to_discard(subjects: dict[str, Subject], config: EvaluateConfig) -> None:
    """UserError if predictions would be removed, before any are."""
    for subject in subjects.values():
        refuse_to_discard(subject, config)


def _steps(request: Request, tasks: int) -> list[Step]:
    """The steps left to do; if the model is already consolidated, only the missing parts."""
    every = [(spelling, number) for spelling in ("", *request.spellings) for number in range(tasks)]
    if not request.is_run or is_newest(request.path / "model", request.path):
        subjects, config = request.subjects()
        _refuse_to_discard(subjects, config)
        missing = {spelling: parts_left(subject, config, tasks) for spelling, subject in subjects.items()}
        every = [(spelling, number) for spelling, number in every if number in missing[spelling]]
    steps = [
        Step("prepare", prepare, [(request,)]),
        Step("predict", predict, [(request, spelling, number, tasks) for spelling, number in every]),
        Step("score", score, [(request,)]),
    ]
    return [step for step in steps if step.arguments]


def _mounts(request: Request) -> list[Path]:
    """Folders that a container must mount."""
    found = [request.path, request.results, *([request.forward_model] if request.forward_model else [])]
    if request.is_run:
        found += folders_of(absolute(toml.load(RunConfig, request.path / "config.toml")))
    return found if request.data is None or is_url(request.data) else [*found, Path(request.data)]
