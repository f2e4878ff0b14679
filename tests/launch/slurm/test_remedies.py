from __future__ import annotations

import pytest

from bigchem.launch.slurm.remedies import DOWN, refusal


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Unable to contact slurm controller (connect failure)", DOWN),
        ("Socket timed out on send/recv operation", DOWN),
        ("Invalid partition name specified", "partition in the profile"),
        ("Invalid account or account/partition combination specified", "account, partition in the profile"),
        ("Invalid qos specification", "qos in the profile"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time_min in the profile"),
        ("Requested node configuration is not available", "nodes have what the profile asks for"),
        ("Node count specification invalid", "nodes in the profile"),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "as many jobs"),
        ("QOSMaxSubmitJobPerUserLimit", "as many jobs"),
        ("Invalid generic resource (gres) specification", "gpus_per_node and gpu_type"),
        ("Job dependency problem", "--after"),
        ("Something that nobody has heard of", "--dry-run"),
    ],
)
def test_what_slurm_says_is_told_with_what_to_do(words: str, hint: str) -> None:
    error = refusal(f"sbatch: error: Batch job submission failed: {words}", "runs/x")
    assert error.what == words
    assert hint in str(error.hint)


def test_the_first_line_is_told_before_the_summary() -> None:
    output = "sbatch: info\nsbatch: error: our cluster wants --account\nsbatch: error: Batch job submission failed: No"
    assert refusal(output, "x").what == "our cluster wants --account (No)"
    twice = "sbatch: error: invalid partition specified: a\nsbatch: error: Batch job submission failed: Invalid name"
    assert refusal(twice, "x").what == "invalid partition specified: a (Invalid name)"
    assert refusal("sbatch: fatal: Could not establish a configuration source", "x").what.startswith("Could not")
    assert "unrecognized option '--x'" in refusal("sbatch: unrecognized option '--x'\nTry help", "x").what
