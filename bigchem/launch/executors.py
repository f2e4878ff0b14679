"""From a cluster profile to submitit's executors: what sbatch and srun are told."""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigchem.errors import UserError
from bigchem.launch.cluster import ClusterProfile

SBATCH_TIMEOUT_S = 60
"""Without slurmctld sbatch tries for minutes."""


def make_executor(
    profile: ClusterProfile, folder: Path, name: str, code: Path | None = None, mounts: Sequence[Path] = ()
) -> Any:
    """submitit's executor for a profile.

    folder: where submitit keeps its pickles and logs. code: a snapshot that the job runs (see snapshot.py); None: what
    is installed. mounts: folders that a container has to show under their own names.
    """
    import submitit

    if profile.executor == "slurm":
        import shutil

        for program in ("sbatch", "srun"):  # submitit takes a machine without srun for no cluster
            if shutil.which(program) is None:
                raise UserError(
                    f"{program} is not on PATH: this is no Slurm login node", name, "or use --cluster local"
                )
        python = slurm_python(profile, code, mounts)
        executor = slurm_executor()(folder=folder, max_num_timeout=profile.max_requeues, python=python)
        executor.update_parameters(**slurm_parameters(profile, name, mounts), teardown=[after(folder, code)])
        return executor
    python = shlex.join([*_with_code(code), sys.executable])
    executor = submitit.LocalExecutor(folder=folder, max_num_timeout=profile.max_requeues, python=python)
    executor.update_parameters(
        timeout_min=profile.time_min,
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        signal_delay_s=profile.signal_delay_s,
    )
    return executor


def slurm_executor() -> Any:
    """submitit's class for Slurm, whose sbatch ends where the controller does not answer."""
    import submitit

    class SlurmExecutor(submitit.SlurmExecutor):  # submitit takes a cluster's name from that of the class
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            command: list[str] = super()._make_submission_command(submission_file_path)
            return ["timeout", str(SBATCH_TIMEOUT_S), *command]

        def _internal_process_submissions(self, delayed_submissions: Sequence[Any]) -> list[Any]:
            """As submitit's, which makes an executor of its own class for arrays."""
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


def slurm_parameters(profile: ClusterProfile, name: str, mounts: Sequence[Path] = ()) -> dict[str, Any]:
    """Parameters of submitit's SlurmExecutor."""
    typed = f"{profile.gpu_type}:{profile.gpus_per_node}" if profile.gpu_type else profile.gpus_per_node
    exported = {**profile.env, **({} if profile.signal == "USR2" else {"SUBMITIT_PREEMPT_SIGNAL": profile.signal})}
    more: dict[str, Any] = {"requeue" if profile.max_requeues else "no-requeue": True, **profile.sbatch}
    if profile.signal != "USR2":  # submitit reads its own when it is imported
        more["signal"] = f"{profile.signal}@{profile.signal_delay_s}"
    given = {
        "job_name": name,
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
        "setup": [*(f"export {k}={shlex.quote(v)}" for k, v in exported.items()), *profile.setup] or None,
        "srun_args": [*_srun(profile), *_pyxis(profile, mounts), *profile.srun_args],
    }
    return {key: value for key, value in given.items() if value is not None}


def sbatch_text(
    profile: ClusterProfile, folder: Path, name: str, code: Path | None = None, mounts: Sequence[Path] = ()
) -> str:
    """The sbatch script that submitting would write, without Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{slurm_python(profile, code, mounts)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    parameters = slurm_parameters(profile, name, mounts)
    text: str = _make_sbatch_string(command=command, folder=folder, teardown=[after(folder, code)], **parameters)
    return text


def after(folder: Path, code: Path | None) -> str:
    """The batch script's last line: with srun's exit code, it starts the job again or says why not. It runs outside of
    any container."""
    return f"{_host_python(code)} -m bigchem.launch.after {shlex.quote(str(folder))} $?"


def slurm_python(profile: ClusterProfile, code: Path | None, mounts: Sequence[Path] = ()) -> str:
    """The words, in shell, that start Python in a job on Slurm."""
    box = profile.container
    if box is None:
        return _host_python(code)
    if box.kind == "pyxis":
        return shlex.join([*_with_code(code), box.python])
    binds = [word for mount in _mounts(profile, mounts) for word in ("--bind", mount)]
    nvidia = ["--nv"] if profile.gpus_per_node else []
    return shlex.join(["apptainer", "exec", *nvidia, *binds, box.image, *_with_code(code), box.python])


def _host_python(code: Path | None) -> str:
    if code is None:
        return shlex.quote(sys.executable)
    path = shlex.quote(f"PYTHONPATH={code}")  # what modules have put there comes after the snapshot
    return f'env PYTHONSAFEPATH=1 {path}"${{PYTHONPATH:+:$PYTHONPATH}}" {shlex.quote(sys.executable)}'


def _srun(profile: ClusterProfile) -> list[str]:
    """No rank waits for one that is gone. From Slurm 22.05 on srun does not take --cpus-per-task from sbatch: without
    its own, each process would be bound to one core."""
    cores = [] if profile.cpus_per_task is None else [f"--cpus-per-task={profile.cpus_per_task}"]
    return ["--kill-on-bad-exit=1", *cores]


def _with_code(code: Path | None) -> list[str]:
    """The snapshot comes first on Python's path. `python -m` would put the working folder before it, which may be a
    checkout that has been edited: PYTHONSAFEPATH keeps it out."""
    return [] if code is None else ["env", "PYTHONSAFEPATH=1", f"PYTHONPATH={code}"]


def _pyxis(profile: ClusterProfile, mounts: Sequence[Path]) -> list[str]:
    box = profile.container
    if box is None or box.kind != "pyxis":
        return []
    return [f"--container-image={box.image}", f"--container-mounts={','.join(_mounts(profile, mounts))}"]


def _mounts(profile: ClusterProfile, mounts: Sequence[Path]) -> list[str]:
    own = [f"{path}:{path}" for path in dict.fromkeys(mounts)]
    return [*own, *(profile.container.mounts if profile.container else ())]


def _megabytes(gigabytes: float | None) -> str | None:
    return None if gigabytes is None else f"{int(gigabytes * 1024)}MB"
