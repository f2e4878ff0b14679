"""Cluster profiles: a TOML that says how jobs run somewhere, turned into submitit's parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bigchem import shipped, strict
from bigchem.errors import UserError
from bigchem.strict import Positive, Section

SLURM_ONLY = ("partition", "account", "qos", "constraint", "cpus_per_task", "mem_gb", "setup", "srun_args")


class ClusterProfile(Section):
    """Where and how jobs run. Fields that only Slurm knows are refused for the local executor."""

    executor: Literal["local", "slurm"]
    """submitit's executor."""
    nodes: Positive = 1
    """Nodes of a job."""
    tasks_per_node: Positive = 1
    """Processes of a node: one per GPU, or on the CPU as many as there are cores to spare."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs of a node; 0: the CPU."""
    cpus_per_task: Positive | None = None
    """Cores of a process."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of a node."""
    time_min: Positive = 1440
    """Time limit of a job, in minutes."""
    signal_delay_s: Positive = 120
    """Seconds before the limit at which a job is told to save and requeue."""
    partition: str | None = None
    """Slurm partition."""
    account: str | None = None
    """Slurm account."""
    qos: str | None = None
    """Slurm quality of service."""
    constraint: str | None = None
    """Slurm node features."""
    setup: tuple[str, ...] = ()
    """Lines run in the batch script before the program: modules, NCCL variables."""
    srun_args: tuple[str, ...] = ()
    """More arguments of srun."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every process."""
    max_concurrent: Positive = 1
    """Runs of a sweep at a time through the local executor. On Slurm all are queued, and its own limits hold."""
    max_requeues: Annotated[int, Field(ge=0)] = 20
    """Times that Slurm may restart a job before it has to be submitted again."""

    @model_validator(mode="after")
    def _check(self) -> ClusterProfile:
        if self.gpus_per_node and self.gpus_per_node != self.tasks_per_node:
            raise ValueError(
                f"tasks_per_node = {self.tasks_per_node}, gpus_per_node = {self.gpus_per_node}: one process per GPU"
            )
        if self.executor == "local":
            given = [n for n in SLURM_ONLY if getattr(self, n) not in (None, ())]
            if given:
                raise ValueError(f"{given[0]} is known to Slurm only, the executor is local")
            if self.nodes > 1:
                raise ValueError(f"nodes = {self.nodes}: the local executor has one")
        return self

    @property
    def world_size(self) -> int:
        """Processes of a job."""
        return self.nodes * self.tasks_per_node


def load_profile(name: str, *, nodes: int | None = None, gpus_per_node: int | None = None) -> ClusterProfile:
    """A profile by name (slurm/clusters/) or path; nodes and GPUs as given, where given."""
    path = shipped.find("clusters", name, ".toml")
    overrides = [] if nodes is None else [f"nodes={nodes}"]
    if gpus_per_node is not None:
        overrides += [f"gpus_per_node={gpus_per_node}", f"tasks_per_node={max(1, gpus_per_node)}"]
    return strict.load(ClusterProfile, path, overrides)


def make_executor(profile: ClusterProfile, folder: Path, name: str) -> Any:
    """submitit's executor for a profile. folder: where submitit keeps its pickles and logs."""
    import submitit

    if profile.executor == "slurm":
        import shutil

        for program in ("sbatch", "srun"):  # submitit takes a machine without srun for no cluster
            if shutil.which(program) is None:
                raise UserError(
                    f"{program} is not on PATH: this is no Slurm login node", name, "or use --cluster local"
                )
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=profile.max_requeues)
        executor.update_parameters(**slurm_parameters(profile, name), teardown=[after(folder)])
        return executor
    executor = submitit.LocalExecutor(folder=folder, max_num_timeout=profile.max_requeues)
    executor.update_parameters(
        timeout_min=profile.time_min,
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        signal_delay_s=profile.signal_delay_s,
    )
    return executor


def slurm_parameters(profile: ClusterProfile, name: str) -> dict[str, Any]:
    """Parameters of submitit's SlurmExecutor."""
    given = {
        "job_name": name,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.tasks_per_node,
        "gpus_per_node": profile.gpus_per_node or None,
        "cpus_per_task": profile.cpus_per_task,
        "mem": None if profile.mem_gb is None else f"{int(profile.mem_gb * 1024)}MB",
        "time": profile.time_min,
        "signal_delay_s": profile.signal_delay_s,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "setup": [*(f"export {k}={_quote(v)}" for k, v in profile.env.items()), *profile.setup] or None,
        "srun_args": ["--kill-on-bad-exit=1", *profile.srun_args],  # no rank waits for one that is gone
    }
    return {key: value for key, value in given.items() if value is not None}


def sbatch_text(profile: ClusterProfile, folder: Path, name: str) -> str:
    """The sbatch script that submitting would write, without Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{sys.executable} -u -m submitit.core._submit {_quote(str(folder))}"
    parameters = slurm_parameters(profile, name)
    text: str = _make_sbatch_string(command=command, folder=folder, teardown=[after(folder)], **parameters)
    return text


def after(folder: Path) -> str:
    """The batch script's last line: with srun's exit code, it starts the job again or says why not."""
    return f"{_quote(sys.executable)} -m bigchem.launch.after {_quote(str(folder))} $?"


def _quote(text: str) -> str:
    import shlex

    return shlex.quote(text)
