from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.launch.cluster.executors import Submission, sbatch_text
from bigchem.launch.cluster.profile import ClusterProfile, ContainerConfig, load_profile
from bigchem.launch.cluster.scratch import use_scratch

GOLDEN = Path(__file__).parent / "golden"
PROFILES = sorted(resources.folder("clusters").glob("*.toml"))


def golden(profile: ClusterProfile, name: str = "x") -> str:
    """The batch script with this machine's Python as PYTHON."""
    run = Path("/runs/x")
    text = sbatch_text(
        Submission(profile, run / "submitit" / "%j", name, run / "code" / "0123456789ab", [run, Path("/data/full")])
    )
    return text.replace(sys.executable, "PYTHON")


@pytest.mark.parametrize("path", [p for p in PROFILES if "slurm" in p.read_text()], ids=lambda p: p.stem)
def test_the_sbatch_text_of_every_shipped_profile_is_the_golden_one(path: Path) -> None:
    assert (
        golden(load_profile(str(path), changes={"nodes": 2, "nodes_max": None}))
        == (GOLDEN / f"{path.stem}.sbatch").read_text()
    )


@pytest.mark.parametrize("kind", ["pyxis", "apptainer"])
def test_the_sbatch_text_of_a_container_is_the_golden_one(kind: str) -> None:
    """Neither has been run: there is no image here. The scripts are compared with the manuals."""
    container = {"kind": kind, "image": "/images/bigchem.sqsh", "mounts": ["/scratch:/scratch:rw"]}
    table = {**load_profile("a100").model_dump(exclude_none=True), "container": container, "signal": "USR1"}
    table |= {"sbatch": {"exclusive": True, "reservation": "chem"}, "max_requeues": 0, "nodes_max": 3}
    assert golden(toml.validate(ClusterProfile, table, kind)) == (GOLDEN / f"{kind}.sbatch").read_text()


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_shipped_profiles_load(path: Path) -> None:
    profile = load_profile(str(path))
    assert profile.world_size == profile.nodes * profile.tasks_per_node


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('executor = "local"\nnodes = 2', "nodes = 2: the local executor has one"),
        ('executor = "local"\npartition = "gpu"', "partition is for Slurm only"),
        ('executor = "local"\nmem_gb = 4', "mem_gb is for Slurm only"),
        ('executor = "slurm"\ngpus_per_node = 3\ntasks_per_node = 2', "one process per GPU"),
        ('executor = "pbs"', "'local' or 'slurm'"),
        ('executor = "slurm"\ngpu_type = "h100"', "gpu_type = h100, but gpus_per_node = 0"),
        ('executor = "slurm"\nmem_per_gpu_gb = 9', "mem_per_gpu_gb = 9.0, but gpus_per_node = 0"),
        ('executor = "slurm"\ngpus_per_node = 1\nmem_gb = 4\nmem_per_gpu_gb = 9', "give one of them"),
        ('executor = "slurm"\ntime_min = 1', "signal_delay_s = 120, but the job has 60 s"),
        ('executor = "slurm"\nsignal = "TERM"', "'USR1' or 'USR2'"),
        ('executor = "slurm"\npartition = "a b"', "partition = 'a b': one word"),
        ('executor = "slurm"\nsbatch = {mem = 4}', "sbatch.mem: that is mem_gb of the profile"),
        ('executor = "slurm"\nsbatch = {gpus_per_node = 4}', "that is gpus_per_node of the profile"),
        ('executor = "slurm"\nsbatch = {exclusive = false}', "sbatch.exclusive"),
        ('executor = "slurm"\nsbatch = {comment = "a\\nb"}', "its value is more than one line"),
        ('executor = "slurm"\nnodes = 3\nnodes_max = 2', "nodes_max = 2 is less than nodes = 3"),
        ('executor = "slurm"\nmem_gb = 4\nsbatch = {mem-per-cpu = 4}', "sbatch.mem-per-cpu: mem_gb"),
        ('executor = "slurm"\n[env]\n"A B" = "c"', "env.A B: not a variable name"),
        ('executor = "slurm"\n[env]\nPYTHONPATH = "c"', "env.PYTHONPATH is set by bigchem"),
        ('executor = "slurm"\nscratch = "/s"\n[env]\nTMPDIR = "c"', "env.TMPDIR is set by scratch"),
        ('executor = "slurm"\n[container]\nimage = "i"\nmounts = ["/a"]', "cannot read '/a'"),
        ('executor = "slurm"\n[container]\nkind = "pyxis"', "container: `image` is missing"),
        ('executor = "local"\n[container]\nimage = "i"', "container is for Slurm only"),
        ('executor = "slurm"\npartiton = "gpu"', "did you mean 'partition'"),
    ],
)
def test_mistakes_in_a_profile_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_profile(str(tmp_path / "mine.toml"))


def test_values_with_spaces_are_quoted_for_the_batch_script(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('executor = "slurm"\n[env]\nWHO = "a b; rm -rf c"\n')
    assert "export WHO='a b; rm -rf c'\n" in sbatch_text(
        Submission(load_profile(str(tmp_path / "mine.toml")), Path("/x"), "x")
    )


def test_what_modules_put_on_pythons_path_comes_after_the_snapshot() -> None:
    text = golden(load_profile("testbed"))
    assert 'env PYTHONSAFEPATH=1 PYTHONPATH=/runs/x/code/0123456789ab"${PYTHONPATH:+:$PYTHONPATH}" PYTHON' in text


def test_scratch_holds_temporary_files_and_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "BIGCHEM_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    use_scratch(f"{tmp_path}/job-$SLURM_JOB_ID")
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == tmp_path / "job-7"
    assert os.environ["BIGCHEM_CACHE"] == str(tmp_path / "job-7" / "shards")
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "job-7" / "triton")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "before"  # the user has chosen it
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create scratch"):
        use_scratch(str(tmp_path / "file" / "below"))


def test_every_field_of_a_profile_is_in_its_page_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text()
    rows = {line.split("|")[1].strip().strip("`"): line for line in page.splitlines() if line.startswith("| `")}
    fields = dict(ClusterProfile.model_fields)
    fields |= {f"container.{name}": field for name, field in ContainerConfig.model_fields.items()}
    assert rows.keys() == fields.keys()
    for name, field in fields.items():
        text = " ".join(str(field.description).split())
        assert f"| {text} |" in rows[name], name
        assert f"| {default_of(field)} |" in rows[name], name


def default_of(field: FieldInfo) -> str:
    """In the page's notation."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "-" if value in (None, (), {}) else f"`{value}`"
