"""From a cluster profile to submitit's executors, and so to the options of sbatch and srun."""

import io
import os
import shlex
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bigchem.base.errors import UserError
from bigchem.launch.cluster.fork_server import ForkServers
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.slurm import options as sbatch_options
from bigchem.launch.slurm import remedies, setup
from bigchem.launch.slurm.client import clean_environment
from bigchem.launch.slurm.job_output import START
from bigchem.launch.slurm.options import OneShot

T = TypeVar("T")

SBATCH_TIMEOUT_S = 60
"""Without slurmctld, sbatch retries for minutes."""


@dataclass(frozen=True)
class Submission:
    """What becomes a job.

    folder: submitit's, for pickles and logs. code: the snapshot that the job runs (see snapshot.py); None: the
    installed package. mounts: folders to mount in a container at their own paths. options: for this submission. is_run:
    the batch script's last line requeues the run, or reports why not. servers: which fork its processes, if it runs on
    this machine's CPU; None: each is a new Python.
    """

    profile: ClusterProfile
    folder: Path
    name: str
    code: Path | None = None
    mounts: Sequence[Path] = ()
    options: OneShot | None = None
    is_run: bool = True
    servers: ForkServers | None = None


def make_executor(made: Submission) -> Any:
    """submitit's executor for a submission."""
    import submitit

    profile, folder, name, options = made.profile, made.folder, made.name, made.options
    if profile.executor == "slurm":
        import shutil

        setup.check(profile.setup)

        for program in ("sbatch", "srun"):  # without srun, submitit assumes there is no Slurm
            if shutil.which(program) is None:
                raise UserError(
                    f"{program} is not on PATH: this is no Slurm login node", name, "or use --cluster local"
                )
        python = slurm_python(profile, made.code, made.mounts)
        executor = slurm_executor()(folder=folder, max_num_timeout=profile.max_requeues, python=python)
        executor.update_parameters(**slurm_parameters(made))
        return executor
    if options:
        what = "--after is for Slurm" if options.after else f"sbatch.{next(iter(options.sbatch))} is for Slurm only"
        hint = "`bigchem submit FIRST --wait && bigchem submit NEXT`"
        raise UserError(f"{what}, but the executor is local", name, hint)
    python = shlex.join([*_with_code(made.code), sys.executable])
    if made.servers is not None and made.code is not None and not profile.gpus_per_node:
        executor = made.servers.executor(folder, profile.max_requeues, python, made.code.name, profile.env)
    else:
        executor = submitit.LocalExecutor(folder=folder, max_num_timeout=profile.max_requeues, python=python)
    executor.update_parameters(
        timeout_min=profile.time_min,
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        signal_delay_s=profile.signal_delay_s,
    )
    return executor


def slurm_executor() -> Any:
    """submitit's class for Slurm, with a timeout for sbatch in case the controller does not answer."""
    import submitit

    class SlurmExecutor(submitit.SlurmExecutor):  # submitit derives the cluster's name from the class's
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            command: list[str] = super()._make_submission_command(submission_file_path)
            return ["timeout", str(SBATCH_TIMEOUT_S), *command]

        def _internal_process_submissions(self, delayed_submissions: Sequence[Any]) -> list[Any]:
            """Like submitit's, which would create an executor of its own class for arrays."""
            if len(delayed_submissions) == 1:
                jobs: list[Any] = super()._internal_process_submissions(delayed_submissions)
                return jobs
            self.folder.mkdir(parents=True, exist_ok=True)
            pickles = [self.folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
            for delayed, file in zip(delayed_submissions, pickles, strict=True):
                delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
                delayed.dump(file)
            self.parameters["map_count"] = len(pickles)
            first = self._submit_command(self._submitit_command_str)
            ranks = list(range(first.num_tasks))
            jobs = [
                self.job_class(folder=self.folder, job_id=f"{first.job_id}_{number}", tasks=ranks)
                for number in range(len(pickles))
            ]
            for job, file in zip(jobs, pickles, strict=True):
                job.paths.move_temporary_file(file, "submitted_pickle")
            return jobs

    return SlurmExecutor


def slurm_parameters(made: Submission) -> dict[str, Any]:
    """Parameters of submitit's SlurmExecutor."""
    profile, code, folder = made.profile, made.code, shlex.quote(str(made.folder))
    typed = f"{profile.gpu_type}:{profile.gpus_per_node}" if profile.gpu_type else profile.gpus_per_node
    exported = {**profile.env, **({} if profile.signal == "USR2" else {"SUBMITIT_PREEMPT_SIGNAL": profile.signal})}
    more: dict[str, Any] = {"requeue" if profile.max_requeues else "no-requeue": True}
    more |= (made.options or OneShot()).options(profile.sbatch)
    if profile.nodes_max is not None:
        more["nodes"] = f"{profile.nodes}-{profile.nodes_max}"
    if profile.signal != "USR2":  # submitit reads its variable at import
        more["signal"] = f"{profile.signal}@{profile.signal_delay_s}"
    report = f"{host_python(code)} -m bigchem.launch.setup_failed {folder}"
    start = f'echo "{START}${{SLURM_RESTART_COUNT:-0}}" >&2'
    lines = [
        start,
        *(f"export {k}={shlex.quote(v)}" for k, v in exported.items()),
        *setup.guarded(profile.setup, report),
    ]
    given = {
        "job_name": made.name,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.tasks_per_node,
        "gpus_per_node": typed or None,
        "cpus_per_task": profile.cpus_per_task,
        "mem": _megabytes(profile.mem_gb),
        "mem_per_gpu": _megabytes(profile.mem_per_gpu_gb),
        "time": profile.time_min,
        "signal_delay_s": profile.signal_delay_s,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "additional_parameters": more,
        "setup": lines or None,
        "srun_args": [*_srun(profile), *_pyxis(profile, made.mounts), *profile.srun_args],
        # Given srun's exit code, it requeues the job or reports why not, outside any container.
        "teardown": [f"{host_python(code)} -m bigchem.launch.requeue {folder} $?"] if made.is_run else None,
    }
    return {"wckey": None, **{key: value for key, value in given.items() if value is not None}}


def sbatch_text(made: Submission) -> str:
    """The sbatch script that submitting would write. Needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    setup.check(made.profile.setup)
    python = slurm_python(made.profile, made.code, made.mounts)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(made.folder))}"
    text: str = _make_sbatch_string(command=command, folder=made.folder, **slurm_parameters(made))
    return text


def submit_call(submission: Callable[[], T], where: str) -> T:
    """Calls submitit; UserError with Slurm's own message if it refuses the job.

    The job inherits nothing from a job in which this process may run. Options that the shell sets for sbatch and srun
    are ignored, with a line on stderr that names them.
    """
    from submitit.core.utils import FailedJobError

    if note := ignored_settings(os.environ):
        print(note, file=sys.stderr, flush=True)
    try:
        with clean_environment(), redirect_stderr(io.StringIO()):  # submitit prints what the error will say
            return submission()
    except FailedJobError as error:
        output = str(error).strip()
        if not output:  # `timeout` has killed it
            hint = f"{remedies.DOWN}; `squeue --me` shows whether the job was queued anyway"
            raise UserError(f"sbatch has not answered for {SBATCH_TIMEOUT_S} s", where, hint) from None
        raise remedies.refusal(output, where) from None


def ignored_settings(names: Iterable[str]) -> str | None:
    """A line that names the shell's settings for sbatch and srun, which jobs ignore; None if there are none."""
    found = [(name, sbatch_options.field_of_variable(name)) for name in sbatch_options.ignored(names)]
    if not found:
        return None
    names = ", ".join(f"{name} (its field: {field})" if field else name for name, field in found)
    return f"ignored, as jobs follow the cluster profile only: {names}"


def slurm_python(profile: ClusterProfile, code: Path | None, mounts: Sequence[Path] = ()) -> str:
    """The shell words that start Python in a Slurm job."""
    container = profile.container
    if container is None:
        return host_python(code)
    if container.kind == "pyxis":
        return shlex.join([*_with_code(code), container.python])
    binds = [word for mount in _mounts(profile, mounts) for word in ("--bind", mount)]
    nvidia = ["--nv"] if profile.gpus_per_node else []
    return shlex.join(["apptainer", "exec", *nvidia, *binds, container.image, *_with_code(code), container.python])


def host_python(code: Path | None) -> str:
    """The same outside any container."""
    if code is None:
        return shlex.quote(sys.executable)
    path = shlex.quote(f"PYTHONPATH={code}")  # what modules put there comes after the snapshot
    return f'env PYTHONSAFEPATH=1 {path}"${{PYTHONPATH:+:$PYTHONPATH}}" {shlex.quote(sys.executable)}'


def _srun(profile: ClusterProfile) -> list[str]:
    """srun's options: no rank waits for one that is gone. Since Slurm 22.05, srun does not take --cpus-per-task from
    sbatch; without its own, each process would be bound to one core."""
    cores = [] if profile.cpus_per_task is None else [f"--cpus-per-task={profile.cpus_per_task}"]
    return ["--kill-on-bad-exit=1", *cores]


def _with_code(code: Path | None) -> list[str]:
    """Puts the snapshot first on Python's path. `python -m` would put the working folder before it, which may be an
    edited checkout: PYTHONSAFEPATH keeps it out."""
    return [] if code is None else ["env", "PYTHONSAFEPATH=1", f"PYTHONPATH={code}"]


def _pyxis(profile: ClusterProfile, mounts: Sequence[Path]) -> list[str]:
    container = profile.container
    if container is None or container.kind != "pyxis":
        return []
    return [f"--container-image={container.image}", f"--container-mounts={','.join(_mounts(profile, mounts))}"]


def _mounts(profile: ClusterProfile, mounts: Sequence[Path]) -> list[str]:
    own = [f"{path}:{path}" for path in dict.fromkeys(mounts)]
    return [*own, *(profile.container.mounts if profile.container else ())]


def _megabytes(gigabytes: float | None) -> str | None:
    return None if gigabytes is None else f"{int(gigabytes * 1024)}MB"
