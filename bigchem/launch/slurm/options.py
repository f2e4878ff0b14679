"""sbatch's options: which profile field sets each, which bigchem cannot work with, which apply to one submission only.
And the options of one submission themselves. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from bigchem.base.errors import UserError

Value = str | int
"""An option's value. True, an int in Python, stands for an option without a value."""

FIELDS = {
    "account": "account",
    "constraint": "constraint",
    "container": "[container]",
    "container-id": "[container]",
    "container-image": "[container]",
    "container-mounts": "[container]",
    "cpus-per-gpu": "cpus_per_task",
    "cpus-per-task": "cpus_per_task",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "gpus-per-socket": "gpus_per_node",
    "gpus-per-task": "gpus_per_node",
    "gres": "gpus_per_node and gpu_type",
    "mem": "mem_gb",
    "mem-per-gpu": "mem_per_gpu_gb",
    "no-requeue": "max_requeues",
    "nodes": "nodes and nodes_max",
    "ntasks": "nodes and tasks_per_node",
    "ntasks-per-gpu": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "partition": "partition",
    "qos": "qos",
    "requeue": "max_requeues",
    "signal": "signal and signal_delay_s",
    "time": "time_min",
    "tres-per-task": "gpus_per_node and cpus_per_task",
}
"""Options with a field in the profile."""

_LOGS = "the logs are in RUN/logs and RUN/submitit, where `bigchem logs` looks for them"
_ANSWER = "bigchem reads the job's id from sbatch's output"
_CLUSTERS = "submit on that cluster's login node, or `export SLURM_CLUSTERS`, which all of bigchem's calls then follow"
_ENVIRONMENT = "use [env] and setup; a job gets the shell's environment without the variables of a surrounding job"
_USER = "the run folder belongs to the user who submits"
REFUSED = {
    "array": "`bigchem sweep submit` makes arrays",
    "cluster-constraint": _CLUSTERS,
    "clusters": _CLUSTERS,
    "error": _LOGS,
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "gid": _USER,
    "help": "it submits nothing",
    "input": "the job reads nothing from it",
    "job-name": "the job has the run's name: --set name=NAME",
    "no-kill": "a job that loses a node must end and be requeued",
    "open-mode": _LOGS,
    "output": _LOGS,
    "parsable": _ANSWER,
    "quiet": _ANSWER,
    "test-only": "it submits nothing: --dry-run shows the script",
    "uid": _USER,
    "usage": "it submits nothing",
    "version": "it submits nothing",
    "wait": "`bigchem submit --wait` waits",
    "wrap": "bigchem writes the script",
}
"""Options that would break a run, each with what to do instead."""

ONE_SHOT = ("begin", "deadline", "dependency", "hold", "reservation")
"""Options that `--set-cluster` sets for one submission: `resume` does not repeat them."""

ALLOWED = (
    *(
        "acctg-freq",
        "batch",
        "bb",
        "bbf",
        "chdir",
        "comment",
        "contiguous",
        "core-spec",
        "cores-per-socket",
        "cpu-freq",
    ),
    *("delay-boot", "distribution", "exclude", "exclusive", "extra", "extra-node-info", "gpu-bind", "gpu-freq"),
    *("gres-flags", "hint", "ignore-pbs", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label"),
    *("mem-bind", "mem-per-cpu", "mincpus", "network", "nice", "nodefile", "nodelist", "ntasks-per-core"),
    *("ntasks-per-socket", "oom-kill-step", "overcommit", "oversubscribe", "power", "prefer", "priority", "profile"),
    *("propagate", "reboot", "resv-ports", "segment", "sockets-per-node", "spread-job", "stepmgr", "switches"),
    *("thread-spec", "threads-per-core", "time-min", "tmp", "tres-bind", "use-min-nodes", "verbose"),
    *("wait-all-nodes", "wckey"),
)
"""Options passed to Slurm unchanged."""

_SHORT = (
    "a=array A=account b=begin B=extra-node-info c=cpus-per-task C=constraint d=dependency D=chdir "
    "e=error F=nodefile G=gpus h=help H=hold i=input J=job-name k=no-kill L=licenses m=distribution "
    "M=clusters n=ntasks N=nodes o=output O=overcommit p=partition q=qos Q=quiet s=oversubscribe "
    "S=core-spec t=time v=verbose V=version w=nodelist W=wait x=exclude"
)
SHORT = dict(pair.split("=") for pair in _SHORT.split())
"""One-letter names; batch scripts use the long ones only."""

KNOWN = (*FIELDS, *REFUSED, *ONE_SHOT, *ALLOWED)


def why_not_allowed(option: str, value: Value) -> str | None:  # noqa: PLR0911
    """Why a profile may not pass this option to sbatch; None if it may.

    Options unlike any known one pass: sites (SPANK plugins) and newer Slurm versions add some, and sbatch itself
    refuses those it does not know. Abbreviations and typos of known ones do not pass: sbatch would expand `arr` to
    `array`.
    """
    name = option.replace("_", "-").lstrip("-")
    name = SHORT.get(name, name)
    if name in FIELDS:
        return f"that is {FIELDS[name]} of the profile"
    if name in REFUSED:
        return f"bigchem cannot work with it: {REFUSED[name]}"
    if "\n" in str(value):
        return "its value is more than one line"
    if name != option or not re.fullmatch(r"[a-z][a-z-]*", option):
        return f"write '{name}'" if name in KNOWN else "write the option without its dashes"
    if name not in KNOWN:
        return _typo(name)
    if name == "distribution" and re.split("[:,]", str(value))[0] not in ("block", "*"):
        return "ranks must fill node by node: block, block:block, block:cyclic"
    return None


def _typo(name: str) -> str | None:
    begun = [known for known in KNOWN if known.startswith(name)]
    near = begun or get_close_matches(name, KNOWN, n=1, cutoff=0.8)
    return f"sbatch has no such option: did you mean '{near[0]}'?" if near else None


@dataclass(frozen=True)
class OneShot:
    """Options of one submission, which `resume` does not repeat.

    after: Slurm's ids of jobs to wait for. after_any: even if they fail. sbatch: options of ONE_SHOT.
    """

    after: tuple[str, ...] = ()
    after_any: bool = False
    sbatch: Mapping[str, Value] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.after or self.sbatch)

    def begun(self) -> OneShot:
        """The same for jobs that wait for one of this submission's own: they need not wait for other jobs too."""
        return replace(self, after=())

    def options(self, profile: Mapping[str, Value]) -> dict[str, Value]:
        """sbatch's options: a profile's, overridden by these. A job whose dependency can never be met is cancelled
        instead of waiting indefinitely."""
        merged = {**profile, **self.sbatch}
        if not self.after:
            return merged
        kind = "afterany" if self.after_any else "afterok"
        return with_dependency(merged, f"{kind}:{':'.join(self.after)}")


def with_dependency(options: Mapping[str, Value], dependency: str) -> dict[str, Value]:
    """sbatch's options with one more dependency, in addition to existing ones."""
    before = options.get("dependency")
    if before is not None and "?" in str(before):  # "this or that", which Slurm does not mix with "and"
        raise UserError(f"'{before}' cannot be joined with {dependency}", "sbatch.dependency", "separate with commas")
    joined = dependency if before is None else f"{before},{dependency}"
    return {**options, "dependency": joined, "kill-on-invalid-dep": options.get("kill-on-invalid-dep", "yes")}


TIMES = {
    r"(?P<m>\d+)(:(?P<s>\d+))?": "MINUTES[:SECONDS]",
    r"(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)": "HOURS:MINUTES:SECONDS",
    r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?": "DAYS-HOURS[:MINUTES[:SECONDS]]",
}
"""Slurm's formats for a time."""


def minutes(text: str) -> int:
    """A time limit in Slurm's format, in minutes. Seconds round up to a minute, as in Slurm."""
    for pattern in TIMES:
        if found := re.fullmatch(pattern, text):
            parts = {name: int(value or 0) for name, value in found.groupdict().items()}
            whole = 1440 * parts.get("d", 0) + 60 * parts.get("h", 0) + parts["m"]
            return whole + math.ceil(parts.get("s", 0) / 60)
    raise UserError(f"cannot read '{text}'", "--time", f"write {'; or '.join(TIMES.values())}")


def node_range(text: str) -> tuple[int, int | None]:
    """`2` or `2-4`: the fewest nodes, and the most if they differ."""
    found = re.fullmatch(r"([1-9]\d*)(?:-([1-9]\d*))?", text)
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        raise UserError(f"cannot read '{text}'", "--nodes", "write a number, or a range from which Slurm picks: 2-4")
    least, most = int(found[1]), int(found[2] or found[1])
    return least, None if most == least else most


def ignored(names: Iterable[str]) -> list[str]:
    """Variables of the shell that set options for sbatch and srun, which jobs ignore."""
    given = sorted(name for name in names if name.startswith(("SBATCH_", "SRUN_")))
    return [n for n in given if n != "SRUN_DEBUG" and not n.startswith(("SBATCH_CPU_BIND", "SBATCH_MEM_BIND"))]


def field_of_variable(name: str) -> str | None:
    """The profile's field for what a variable such as SBATCH_ACCOUNT sets."""
    word = name.partition("_")[2].lower().replace("_", "-")
    return FIELDS.get("time" if word == "timelimit" else word)
