"""`bigchem submit --dry-run`: what submitting would do, and whether the run fits. Writes nothing."""

from typing import Any

from bigchem.base import toml
from bigchem.base.masking import mask, mask_values
from bigchem.config import RunConfig
from bigchem.ds_config import ds_config_for, zero_stage
from bigchem.launch import fit_check
from bigchem.launch.cluster.executors import Submission, sbatch_text
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.cluster.snapshot import planned
from bigchem.launch.runs.prepare import absolute, folders_of, preflight
from bigchem.launch.slurm.options import OneShot
from bigchem.train.compiling import compiles


def dry_run(config: RunConfig, profile: ClusterProfile, options: OneShot | None = None) -> dict[str, Any]:
    """As plain data: run_dir, config, profile, sbatch (None for the local executor), deepspeed, compile, verdict.

    options: for this submission. If Slurm picks the nodes from a range, verdicts are for the fewest: then each GPU
    holds most. UserError for what submitting would refuse before it asks Slurm.
    """
    config = absolute(config)
    notes = {note: None for ranks in profile.world_sizes for note in preflight(config, ranks)}
    device = "cuda" if profile.gpus_per_node else "cpu"
    text = None
    if profile.executor == "slurm":
        code = planned(config.run_dir / "code")
        folder, mounts = config.run_dir / "submitit" / "%j", folders_of(config)
        text = sbatch_text(Submission(profile, folder, config.name, code, mounts, options))
    return {
        "run_dir": str(config.run_dir),
        "config": mask_values(config.model_dump(mode="json", exclude_none=True)),
        "profile": mask_values(profile.model_dump(mode="json", exclude_none=True)),
        "sbatch": None if text is None else mask(text),
        "deepspeed": {"file": config.train.ds_config, "notes": list(notes)},
        "compile": compiles(config, device, zero_stage(ds_config_for(config, profile.world_size)))[1],
        "verdict": fit_check.as_json(fit_check.judge(config, profile)),
    }


def dry_run_text(config: RunConfig, profile: ClusterProfile, options: OneShot | None = None) -> str:
    """The same as text: the configuration in TOML, the batch script and, last, the verdicts."""
    found = dry_run(config, profile, options)
    parts = [f"# {found['run_dir']}/config.toml", mask(toml.dump(absolute(config)))]
    if found["sbatch"] is None:
        parts += [f"# {profile.tasks_per_node} processes through submitit's local executor", ""]
    else:
        parts += ["# sbatch", found["sbatch"]]
    if found["deepspeed"]["notes"]:
        parts += [f"# {found['deepspeed']['file']}", *found["deepspeed"]["notes"], ""]
    parts += [f"# {found['compile']}", ""]
    parts += ["# verdict", *(f"{n:<12} {v['verdict']:<8} {v['message']}" for n, v in found["verdict"].items())]
    return "\n".join(parts)
