"""A run folder's content before its job starts: the resolved configuration, the state of the code, the environment."""

import json
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import bigchem
from bigchem import ds_config
from bigchem.base import atomic, toml
from bigchem.base.errors import UserError
from bigchem.base.masking import mask, mask_words
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, evaluated_tasks, open_data, with_mixture
from bigchem.data.storage.remote import is_url
from bigchem.ds_config.by_deepspeed import check_with_deepspeed
from bigchem.launch.runs import history
from bigchem.model import presets
from bigchem.model.weights import hub
from bigchem.run import notify
from bigchem.run.state import read_state, write_state
from bigchem.tasks import Task, write_tasks
from bigchem.train.checkpoint.best import validated_tasks
from bigchem.train.checkpoint.store import latest, newest_readable
from bigchem.train.initial import check_initial
from bigchem.train.logging.services import check_services

GIT_TIMEOUT_S = 10
DIFF_LIMIT = 1 << 20
"""Characters of a diff that are recorded."""
FREE = ("data.path", "data.check", "data.cache", "data.cache_gb", "data.micro_tokens", "model.attention")
"""May change between attempts: the fingerprint identifies the data, and the others change results by rounding only."""


def absolute(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths: a job may run from anywhere."""
    data: dict[str, object] = {}
    if not is_url(config.data.path):
        data["path"] = _absolute(config.data.path)
    if config.data.cache is not None:
        data["cache"] = _absolute(config.data.cache)
    update: dict[str, object] = {"data": config.data.model_copy(update=data), "runs": _absolute(config.runs)}
    copies = config.checkpoint.copy_to
    if copies is not None and not is_url(copies):
        update["checkpoint"] = config.checkpoint.model_copy(update={"copy_to": _absolute(copies)})
    if config.model.init_from is not None and hub.is_path(config.model.init_from):
        update["model"] = config.model.model_copy(update={"init_from": _absolute(config.model.init_from)})
    if Path(config.train.ds_config).is_file():
        update["train"] = config.train.model_copy(update={"ds_config": _absolute(config.train.ds_config)})
    return config.model_copy(update=update)


def _absolute(folder: str) -> str:
    return str(Path(folder).expanduser().resolve())


def folders_of(config: RunConfig) -> list[Path]:
    """Folders that a job reads and writes, and a container must mount. The configuration is `absolute`."""
    named = [config.data.path, config.checkpoint.copy_to]
    folders = [config.run_dir, *(Path(name) for name in named if name is not None and not is_url(name))]
    if config.model.init_from is not None:
        folders.append(Path(config.model.init_from) if hub.is_path(config.model.init_from) else hub.cache())
    return folders


def prepare(config: RunConfig) -> Path:
    """Creates or reopens a run's folder; fields that may change between attempts take their new values."""
    config = absolute(config)
    refuse_changed_run(config)
    data = open_data(config.data)
    config = with_mixture(config, data)
    if config.model.init_from is not None:
        # Fetched once, and before the queue: compute nodes often have no internet.
        check_initial(hub.fetched(config.model.init_from), data)
    run_dir = config.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(data.tokenizer_dir, run_dir / "tokenizer", dirs_exist_ok=True)
    write_tasks(run_dir, data.tasks.only(config.data.mixture))
    atomic.write_atomically(run_dir / "config.toml", toml.dump(config))
    atomic.write_atomically(run_dir / "git.txt", git_state(Path(bigchem.__file__).parent))
    atomic.write_atomically(run_dir / "environment.json", json.dumps(environment(), indent=1))
    history.close(run_dir, after=False)  # while state.json still describes the last attempt
    write_state(run_dir, "prepared", step=read_state(run_dir).get("step", 0), steps=config.train.steps)
    return run_dir


def preflight(config: RunConfig, world_size: int, *, ask_deepspeed: bool = True) -> tuple[str, ...]:
    """Raises what would otherwise fail inside the job: data, tasks, caps, preset, DeepSpeed configuration. Returns
    notes on legitimate deviations from the DeepSpeed file.

    ask_deepspeed: have DeepSpeed's own classes check a file that is not shipped: seconds, in another process.
    """
    data = open_data(config.data)
    Plan(data, config.data, config.seed).check_steps(config.train.steps)
    presets.shape(config.model.preset)
    named = config.model.init_from
    if named is not None and hub.is_path(named):  # others are checked when they are fetched
        check_initial(hub.fetched(named), data)
    deepspeed = ds_config.completed(config, world_size)
    notes = deepspeed.notes
    if ask_deepspeed and (unknown := check_with_deepspeed(deepspeed)):
        notes = (*notes, unknown)
    config = with_mixture(config, data)
    if config.evaluate.at_end:
        names = evaluated_tasks(config, data)
        _check_metrics([data.tasks[name] for name in names])
        for task in names:
            data.split(config.evaluate.split, task)
    if config.validation.every:
        validated_tasks(config, data)
    check_services(config)
    notify.check(config.notify)
    newest = newest_readable(config.run_dir / "checkpoints")
    if newest is not None:
        path, manifest = newest
        manifest.refuse_unless(path, data.index.fingerprint, config.train.precision, config.optimizer.kind)
    return notes


def _check_metrics(tasks: list[Task]) -> None:
    """UserError if a task's record lists a metric that does not exist. Imports the metrics only if one lists any: each
    rank runs this."""
    if any(task.metrics for task in tasks):
        from bigchem.evaluate.protocol.definitions import check_metrics

        check_metrics(tasks)


def refuse_changed_run(config: RunConfig) -> None:
    """UserError if the run has a checkpoint of another model, data or seed, or of a later step."""
    file = config.run_dir / "config.toml"
    changed = [n for n in changed_fields(config) if n.split(".")[0] in ("model", "data", "seed") and n not in FREE]
    if changed:
        raise UserError(
            f"the run was started with another {', '.join(changed)}", str(file), "give the new run another name"
        )
    newest = newest_readable(config.run_dir / "checkpoints")
    done = 0 if newest is None else newest[1].step
    if done > config.train.steps:
        raise UserError(f"the run is at step {done} already: train.steps = {config.train.steps}", str(file))


def changed_fields(config: RunConfig) -> list[str]:
    """Fields in which the configuration differs from the one of the run's checkpoints."""
    file = config.run_dir / "config.toml"
    if latest(config.run_dir / "checkpoints") is None or not file.is_file():
        return []
    started = toml.load(RunConfig, file)
    if not config.data.mixture:  # what the data hold, which the run's own file names
        config = config.model_copy(update={"data": config.data.model_copy(update={"mixture": started.data.mixture})})
    a, b = (toml.flat(one.model_dump()) for one in (started, config))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def git_state(package: Path) -> str:
    """Commit, status and diff of bigchem's own checkout, secrets masked; or one line if there is none.

    A package installed inside another repository, as in a project's virtual environment, reports nothing about that
    repository. Diff programs that a repository's configuration names are not run.
    """

    def git(*args: str) -> str:
        command = ["git", "-C", str(package), *args]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=GIT_TIMEOUT_S, check=True
        ).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != package.resolve().parent:
            return f"not a checkout of bigchem; bigchem {bigchem.__version__}\n"
        diff = git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
        cut = "" if len(diff) <= DIFF_LIMIT else f"\n... and {len(diff) - DIFF_LIMIT:,} more characters\n"
        return mask(f"commit {git('rev-parse', 'HEAD')}\n{git('status', '--short')}\n{diff[:DIFF_LIMIT]}{cut}")
    except (OSError, subprocess.SubprocessError):
        return f"not a checkout of bigchem; bigchem {bigchem.__version__}\n"


def environment() -> dict[str, object]:
    """Python, machine and the versions of all packages; no environment variables."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": mask_words(sys.argv),
        "python": sys.version,
        "host": platform.node(),
        "platform": platform.platform(),
        # Every use of `metadata` parses it again.
        "packages": dict(sorted((m["Name"], m["Version"]) for m in (d.metadata for d in distributions()))),
    }
