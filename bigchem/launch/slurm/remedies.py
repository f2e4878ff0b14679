"""sbatch's error messages, and what to do about them. Pure."""

from bigchem.base.errors import UserError

DOWN = "Slurm does not answer: try again later; `sinfo` shows when it does"
UNCONFIGURED = "Slurm finds no configuration here: submit on a login node, or set SLURM_CONF"
OTHERWISE = "`bigchem submit --dry-run` shows sbatch's options"
_TIME = "time_min in the profile, or --time: `sinfo -o '%P %l'` shows each partition's limit"
_GPUS = "gpus_per_node and gpu_type in the profile: `sinfo -o '%P %G'` lists GPUs"
_QUEUED = "you have as many jobs queued as allowed: wait for some, or choose another qos in the profile"
REMEDIES = (
    ("unable to contact slurm controller", DOWN),
    ("socket timed out", DOWN),
    ("connection refused", DOWN),
    ("connection timed out", DOWN),
    ("zero bytes were transmitted", DOWN),
    ("standby mode", DOWN),
    ("transport endpoint is not connected", DOWN),
    ("could not establish a configuration source", UNCONFIGURED),
    ("protocol authentication error", "ask your administrators: `munge -n | unmunge` shows whether it works here"),
    ("invalid account or account/partition", "account, partition in the profile: `sacctmgr show assoc user=$USER`"),
    ("invalid account", "account in the profile: `sacctmgr show assoc user=$USER`"),
    ("invalid qos", "qos in the profile: `sacctmgr show assoc user=$USER format=account,partition,qos`"),
    ("maxsubmit", _QUEUED),
    ("submit limit", _QUEUED),
    ("time limit", _TIME),
    ("more processors requested", "tasks_per_node, cpus_per_task in the profile: `sinfo -o '%P %c'` shows cores"),
    ("memory specification", "mem_gb or mem_per_gpu_gb in the profile: `sinfo -o '%P %m'` shows each node's memory"),
    ("generic resource", _GPUS),
    ("gres", _GPUS),
    ("invalid feature", "constraint in the profile: `sinfo -o '%P %f'` lists features"),
    ("node count specification", "nodes in the profile, or --nodes: `sinfo -s` shows how many a partition has"),
    (
        "node configuration is not available",
        "no nodes have what the profile asks for: nodes, gpus_per_node, gpu_type, cpus_per_task, memory, constraint; "
        "`sinfo -o '%P %D %c %m %G %f'` shows what is available",
    ),
    ("reservation", "sbatch.reservation in the profile: `scontrol show reservation` lists them"),
    ("dependency", "--after names a job that Slurm does not know, or whose end can no longer satisfy it"),
    ("unrecognized option", "remove it from [sbatch] in the profile: this Slurm does not know it"),
    ("license", "sbatch.licenses in the profile: `scontrol show licenses` lists them"),
    ("partition", "partition in the profile, or --partition: `sinfo -s` lists them"),
)
"""Parts of sbatch's messages, in lower case, and what to do; the first match counts."""


def refusal(output: str, where: str) -> UserError:
    """The error for sbatch's output when it refused a job: the first line, and the summary in the last."""
    lines = [line.partition("error: ")[2] or line.partition("fatal: ")[2] for line in output.splitlines()]
    lines = [line.strip() for line in lines if line.strip()] or output.strip().splitlines() or ["sbatch failed"]
    first, last = (line.removeprefix("Batch job submission failed: ") for line in (lines[0], lines[-1]))
    return UserError(first if last in first else f"{first} ({last})", where, remedy(output))


def remedy(output: str) -> str:
    """What to do about sbatch's output."""
    lower = output.lower()
    return next((what for part, what in REMEDIES if part in lower), OTHERWISE)
