from __future__ import annotations

from collections import Counter

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.cluster.executors import ignored_settings
from bigchem.launch.cluster.profile import ClusterProfile, for_submission
from bigchem.launch.slurm import options
from bigchem.launch.slurm.options import OneShot, minutes, node_range, why_not_allowed, with_dependency


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("90", 90),
        ("90:00", 90),
        ("0:30", 1),
        ("4:00:00", 240),
        ("4:00:01", 241),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("1-0:0:1", 1441),
    ],
)
def test_times_are_read_as_slurm_reads_them(text: str, limit: int) -> None:
    assert minutes(text) == limit


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-5", "UNLIMITED", "1-2:3:4:5"])
def test_other_times_are_refused_with_what_can_be_written(text: str) -> None:
    with pytest.raises(UserError, match=r"(?s)cannot read '.*HOURS:MINUTES:SECONDS"):
        minutes(text)


def test_a_range_of_nodes_is_a_least_and_a_most() -> None:
    assert [node_range(text) for text in ("3", "2-4", "2-2")] == [(3, None), (2, 4), (2, None)]
    for text in ("0", "4-2", "2-", "a", "1,2"):
        with pytest.raises(UserError, match="a range from which Slurm picks"):
            node_range(text)


def test_every_option_is_classified_once() -> None:
    assert max(Counter(options.KNOWN).values()) == 1
    assert set(options.SHORT.values()) <= set(options.KNOWN)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("array", "`bigchem sweep submit` makes arrays"),
        ("job-name", "the run's name: --set name=NAME"),
        ("J", "the run's name"),
        ("output", "the logs are in RUN/logs"),
        ("open-mode", "the logs are in RUN/logs"),
        ("n", "that is nodes and tasks_per_node of the profile"),
        ("ntasks", "that is nodes and tasks_per_node of the profile"),
        ("gpus_per_task", "that is gpus_per_node of the profile"),
        ("parsable", "reads the job's id from sbatch's output"),
        ("wait", "`bigchem submit --wait` waits"),
        ("test-only", "--dry-run shows the script"),
        ("export", r"use \[env\] and setup"),
        ("clusters", "submit on that cluster's login node, or `export SLURM_CLUSTERS`"),
        ("M", "submit on that cluster's login node, or `export SLURM_CLUSTERS`"),
        ("--exclusive", "write 'exclusive'"),
        ("mail_type", "write 'mail-type'"),
        ("x", "write 'exclude'"),
        ("mail-typ", "did you mean 'mail-type'"),
        ("arr", "did you mean 'array'"),
        ("reservaton", "did you mean 'reservation'"),
    ],
)
def test_what_would_break_a_run_is_refused_with_what_to_use(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        for_submission("a100", {f"sbatch.{option}": "x"})


def test_what_slurm_or_a_site_adds_passes() -> None:
    for option, value in [("mail-type", "END"), ("gpu-mode", "x"), ("uenv", "y"), ("hold", True), ("nice", 10)]:
        assert why_not_allowed(option, value) is None
    assert why_not_allowed("distribution", "block:cyclic") is None
    assert "node by node" in str(why_not_allowed("distribution", "cyclic"))


def test_options_of_one_submission_are_kept_apart_from_the_profile() -> None:
    asked = {"time_min": 60, "sbatch.begin": "now+1hour", "sbatch.mail-type": "END", "sbatch.reservation": "chem"}
    profile, once = for_submission("a100", asked)
    assert once == OneShot(sbatch={"begin": "now+1hour", "reservation": "chem"})
    assert profile.time_min == 60
    assert profile.sbatch == {"distribution": "block:block", "exclusive": True, "mail-type": "END"}
    merged = once.options(profile.sbatch)
    assert (merged["begin"], merged["mail-type"]) == ("now+1hour", "END")


def test_a_dependency_comes_on_top_of_the_profiles_and_never_waits_in_vain() -> None:
    after = OneShot(after=("12", "13_4"))
    assert after.options({}) == {"dependency": "afterok:12:13_4", "kill-on-invalid-dep": "yes"}
    assert OneShot(after=("12",), after_any=True).options({})["dependency"] == "afterany:12"
    assert after.options({"dependency": "singleton"})["dependency"] == "singleton,afterok:12:13_4"
    assert after.begun().options({"nice": 1}) == {"nice": 1}
    with pytest.raises(UserError, match="cannot be joined"):
        with_dependency({"dependency": "afterok:1?afterok:2"}, "afterok:3")


def test_settings_of_the_shell_that_jobs_do_not_follow_are_named_with_their_fields() -> None:
    assert ignored_settings({"SLURM_JOB_ID": "1", "SRUN_DEBUG": "3", "SBATCH_CPU_BIND": "none", "HOME": "/"}) is None
    message = str(ignored_settings({"SBATCH_TIMELIMIT": "60", "SBATCH_PARTITION": "gpu", "SRUN_CPU_BIND": "x"}))
    assert "SBATCH_PARTITION (its field: partition), SBATCH_TIMELIMIT (its field: time_min), SRUN_CPU_BIND" in message


def test_options_of_slurm_are_refused_where_jobs_are_processes() -> None:
    with pytest.raises(UserError, match="sbatch is for Slurm only"):
        for_submission("local", {"sbatch.begin": "now"})
    assert ClusterProfile(executor="slurm", nodes=2, nodes_max=4, tasks_per_node=3).world_sizes == (6, 12)
