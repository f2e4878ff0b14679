from __future__ import annotations

import re
from pathlib import Path

import pytest

from bigchem import shipped
from bigchem.errors import UserError
from bigchem.launch.cluster import load_profile, sbatch_text

GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=my-account
#SBATCH --constraint=h100
#SBATCH --cpus-per-task=12
#SBATCH --error=/runs/x/%j_0_log.err
#SBATCH --gpus-per-node=8
#SBATCH --job-name=x
#SBATCH --mem=983040MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/x/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --signal=USR2@180
#SBATCH --time=1440
#SBATCH --wckey=submitit

# setup
export NCCL_DEBUG=WARN
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
ulimit -l unlimited

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/x/%j_%t_log.out --error /runs/x/%j_%t_log.err --kill-on-bad-exit=1 \
PYTHON -u -m submitit.core._submit /runs/x


# teardown
PYTHON -m bigchem.launch.after /runs/x $?"""


def test_the_sbatch_text_is_the_golden_one() -> None:
    text = sbatch_text(load_profile("h100", nodes=2), Path("/runs/x"), "x")
    assert re.sub(r"\S+/python[\d.]*", "PYTHON", text) == GOLDEN


@pytest.mark.parametrize("path", sorted(shipped.folder("clusters").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_profiles_load(path: Path) -> None:
    profile = load_profile(str(path))
    assert profile.world_size == profile.nodes * profile.tasks_per_node


def test_nodes_and_gpus_override_the_profile() -> None:
    profile = load_profile("h100", nodes=3, gpus_per_node=4)
    assert (profile.nodes, profile.gpus_per_node, profile.tasks_per_node, profile.world_size) == (3, 4, 4, 12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('executor = "local"\nnodes = 2', "nodes = 2: the local executor has one"),
        ('executor = "local"\npartition = "gpu"', "partition is known to Slurm only"),
        ('executor = "local"\nmem_gb = 4', "mem_gb is known to Slurm only"),
        ('executor = "slurm"\ngpus_per_node = 3\ntasks_per_node = 2', "one process per GPU"),
        ('executor = "pbs"', "'local' or 'slurm'"),
        ('executor = "slurm"\npartiton = "gpu"', "did you mean 'partition'"),
    ],
)
def test_mistakes_in_a_profile_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=told):
        load_profile(str(tmp_path / "mine.toml"))


def test_values_with_spaces_are_quoted_for_the_batch_script(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('executor = "slurm"\n[env]\nWHO = "a b; rm -rf c"\n')
    assert "export WHO='a b; rm -rf c'\n" in sbatch_text(load_profile(str(tmp_path / "mine.toml")), Path("/x"), "x")
