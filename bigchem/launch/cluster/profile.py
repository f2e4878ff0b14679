"""Cluster profiles: TOML files that say how jobs run on a cluster. docs/clusters.md lists every field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, model_validator

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.base.masking import MASK, mask_values
from bigchem.base.toml import Positive, Section
from bigchem.launch.slurm import options
from bigchem.launch.slurm.options import OneShot

SLURM_ONLY = (
    *("partition", "account", "qos", "constraint", "gpu_type", "cpus_per_task", "mem_gb", "mem_per_gpu_gb"),
    *("setup", "srun_args", "sbatch", "container", "elastic_after_min"),
)
GPU_ONLY = ("gpu_type", "gpu_memory_gb", "mem_per_gpu_gb")
OUR_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH", "SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL", "BIGCHEM_JOB_END")
"""Set by bigchem for the job: another value would run other code, or miss the signal."""


class ContainerConfig(Section):
    """The image that processes run in."""

    kind: Literal["pyxis", "apptainer"] = "pyxis"
    """`pyxis`: NVIDIA's plugin for srun (--container-image). `apptainer`: `apptainer exec`."""
    image: str
    """Image of that kind: a .sqsh or .sif file, or docker://..."""
    mounts: tuple[str, ...] = ()
    """Additional mounts, HOST:CONTAINER."""
    python: str = "python3"
    """The image's Python, with bigchem's dependencies installed."""

    @model_validator(mode="after")
    def _check(self) -> ContainerConfig:
        for mount in self.mounts:
            if not re.fullmatch(r"/[^:,]*:/[^:,]*(:[a-z+]+)?", mount):
                raise ValueError(f"mounts: cannot read '{mount}': write /HOST:/CONTAINER")
        return self


class ClusterProfile(Section):
    """Where and how jobs run. Fields for Slurm only are refused for the local executor."""

    executor: Literal["local", "slurm"]
    """submitit's executor. `local`: processes on this machine."""
    nodes: Positive = 1
    """Nodes per job; with nodes_max, the minimum."""
    nodes_max: Positive | None = None
    """Maximum nodes per job: Slurm allocates between `nodes` and this many, whatever is free at the start. Omitted:
    exactly `nodes`."""
    tasks_per_node: Positive = 1
    """Processes per node. With GPUs: equal to gpus_per_node. On the CPU: at most the number of spare cores."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs per node; 0: train on the CPU."""
    gpu_type: str | None = None
    """Slurm's name for the GPU type, as `sinfo -o %G` shows it. Omitted: any."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of one GPU (10^9 bytes), which `--dry-run` compares with the run's. Omitted: not compared."""
    cpus_per_task: Positive | None = None
    """Cores per process, so per GPU. Omitted: Slurm's default."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    """Host memory per node (2^30 bytes). Omitted: Slurm's default."""
    mem_per_gpu_gb: Annotated[float, Field(gt=0)] | None = None
    """Host memory per GPU (2^30 bytes), instead of mem_gb; scales with `--gpus-per-node`."""
    time_min: Positive = 1440
    """Time limit of a job, in minutes."""
    signal: Literal["USR1", "USR2"] = "USR2"
    """Signal on which a job saves and requeues. Slurm sends it before the time limit and, if the cluster sets
    preempt_send_user_signal, on preemption."""
    signal_delay_s: Positive = 120
    """Seconds before the time limit at which the signal is sent."""
    partition: str | None = None
    """Slurm partition."""
    account: str | None = None
    """Slurm account."""
    qos: str | None = None
    """Slurm quality of service."""
    constraint: str | None = None
    """Slurm node features."""
    sbatch: dict[str, str | int | Literal[True]] = Field(default_factory=dict)
    """Other sbatch options, such as exclusive = true or reservation = "chem"."""
    setup: tuple[str, ...] = ()
    """Bash commands that the batch script runs on the first node before the ranks start, such as `module load`. If one
    fails, the job stops."""
    srun_args: tuple[str, ...] = ()
    """Extra arguments for srun."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for every process, such as NCCL's."""
    scratch: str | None = None
    """Node-local folder that the job creates; may contain variables ($SLURM_JOB_ID, $USER). Holds TMPDIR, compilation
    caches and, unless the run sets `data.cache`, remote shards. Omitted: /tmp, and caches in the home folder."""
    container: ContainerConfig | None = None
    """Container image for the processes. Omitted: the Python that submits, which must be on a file system that all
    nodes share."""
    max_concurrent: Positive | None = None
    """Maximum concurrent tasks: per array on Slurm; per sweep, data build or evaluation with the local executor.
    Omitted: only Slurm's own limits; locally one."""
    max_requeues: Annotated[int, Field(ge=0)] = 20
    """Maximum restarts of a job; after that, `bigchem resume` submits it again. 0: neither bigchem nor Slurm requeues
    it."""
    elastic_after_min: Positive | None = None
    """Minutes that a restarted job waits for its previous number of nodes. After that it starts on whatever is free,
    from `nodes` to `nodes_max`. Omitted: it waits indefinitely."""
    elastic_partition: str | None = None
    """Partition of the one-core job that checks every `elastic_after_min` minutes. Omitted: the job's own."""

    @model_validator(mode="after")
    def _check(self) -> ClusterProfile:
        if self.gpus_per_node and self.gpus_per_node != self.tasks_per_node:
            raise ValueError(
                f"tasks_per_node = {self.tasks_per_node}, gpus_per_node = {self.gpus_per_node}: one process per GPU"
            )
        for name in GPU_ONLY if not self.gpus_per_node else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} = {getattr(self, name)}, but gpus_per_node = 0")
        if self.mem_gb is not None and self.mem_per_gpu_gb is not None:
            raise ValueError(f"mem_gb = {self.mem_gb:g} and mem_per_gpu_gb = {self.mem_per_gpu_gb:g}: give one of them")
        if "mem-per-cpu" in self.sbatch and (self.mem_gb or self.mem_per_gpu_gb):
            raise ValueError("sbatch.mem-per-cpu: mem_gb or mem_per_gpu_gb is set already: give one of them")
        if self.signal_delay_s >= 60 * self.time_min:
            raise ValueError(
                f"signal_delay_s = {self.signal_delay_s}, but the job has {60 * self.time_min} s (time_min = "
                f"{self.time_min}): it would be told to stop as it starts"
            )
        self._check_sizes()
        self._check_texts()
        if self.executor == "local":
            given = [name for name in SLURM_ONLY if getattr(self, name) not in (None, (), {})]
            if given:
                raise ValueError(f"{given[0]} is for Slurm only, but the executor is local")
            if self.max_nodes > 1:
                raise ValueError(f"nodes = {self.max_nodes}: the local executor has one")
        return self

    def _check_sizes(self) -> None:
        if self.nodes_max is not None and self.nodes_max < self.nodes:
            raise ValueError(f"nodes_max = {self.nodes_max} is less than nodes = {self.nodes}")
        if self.elastic_after_min is not None and self.nodes_max in (None, self.nodes):
            raise ValueError("elastic_after_min needs a range: give nodes, the fewest, and nodes_max above it")
        if self.elastic_after_min is not None and not self.max_requeues:
            raise ValueError("elastic_after_min, but max_requeues = 0: the job is never restarted")
        if self.elastic_partition is not None and self.elastic_after_min is None:
            raise ValueError("elastic_partition, but no elastic_after_min: there is nothing to check")

    def _check_texts(self) -> None:
        """Checks the values that end up in lines of the batch script."""
        for name in ("gpu_type", "partition", "account", "qos", "constraint", "elastic_partition"):
            if not re.fullmatch(r"\S+", getattr(self, name) or "-"):
                raise ValueError(f"{name} = {getattr(self, name)!r}: one word, without spaces")
        for option, value in self.sbatch.items():
            if why_not := options.why_not_allowed(option, value):
                raise ValueError(f"sbatch.{option}: {why_not}")
        for name in self.env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"env.{name}: not a variable name")
            if name in OUR_VARIABLES or (name == "TMPDIR" and self.scratch is not None):
                owner = "signal" if name == "SUBMITIT_PREEMPT_SIGNAL" else "scratch" if name == "TMPDIR" else "bigchem"
                raise ValueError(f"env.{name} is set by {owner}")

    @property
    def world_size(self) -> int:
        """Processes of a job; the fewest, if Slurm picks its nodes from a range."""
        return self.nodes * self.tasks_per_node

    @property
    def max_nodes(self) -> int:
        """Nodes of a job; the most, if Slurm picks from a range."""
        return self.nodes_max or self.nodes

    @property
    def world_sizes(self) -> tuple[int, ...]:
        """Processes of a job: the fewest and, if Slurm picks its nodes from a range, the most."""
        return tuple(sorted({self.world_size, self.max_nodes * self.tasks_per_node}))


def load_profile(name: str, *, changes: Mapping[str, Any] = MappingProxyType({})) -> ClusterProfile:
    """A profile by name (slurm/clusters/) or path. changes: new values by dotted field; None removes it."""
    path = resources.find("clusters", name, ".toml")
    table = toml.read_table(path)
    for field, value in changes.items():
        toml.put(table, field, value, str(path))
    _fill_in(table, str(path))
    return toml.validate(ClusterProfile, table, str(path))


def recorded(profile: ClusterProfile) -> str:
    """The profile as TOML for a run folder, secrets masked. `load_profile` takes [env]'s from the environment."""
    return tomli_w.dumps(mask_values(profile.model_dump(mode="json", exclude_none=True)))


def _fill_in(table: dict[str, Any], where: str) -> None:
    """Replaces variables that `recorded` has masked by the environment's. UserError if one is missing, and for any
    other masked field: "***" would be taken for its value."""
    for field, value in toml.flat(table).items():
        if MASK not in json.dumps(value, default=str):
            continue
        section, _, name = field.partition(".")
        given = os.environ.get(name) if section == "env" else None
        if given is None:
            hint = f"export {name}, or give the profile itself: --cluster PROFILE" if section == "env" else None
            raise UserError(f"{field} is a secret, which is not recorded", where, hint or "give --cluster PROFILE")
        table["env"][name] = given


def for_submission(name: str, changes: Mapping[str, Any]) -> tuple[ClusterProfile, OneShot]:
    """A profile with changes, and separately those changes that apply to this submission only: sbatch.begin and the
    like (see options.ONE_SHOT)."""
    once = {option: f"sbatch.{option}" for option in options.ONE_SHOT if f"sbatch.{option}" in changes}
    whole = load_profile(name, changes=changes)  # checks the values too
    lasting = {field: value for field, value in changes.items() if field not in once.values()}
    return load_profile(name, changes=lasting), OneShot(sbatch={option: whole.sbatch[option] for option in once})
