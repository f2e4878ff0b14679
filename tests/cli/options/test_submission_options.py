"""Options of the verbs that submit: their effect on a profile, and the dry runs in their help."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from test_help import PATHS, command_at, examples
from test_main import bigchem

from bigchem.base.errors import UserError
from bigchem.cli.options.submission import read_options
from bigchem.launch.cluster.profile import load_profile


def test_every_option_changes_the_profile_and_the_others_stay() -> None:
    before = load_profile("h100")
    profile, once = read_options("2-4", 4, "4:00:00", ["scratch=/s"], qos="long", partition="p", account="a").resolve(
        "h100"
    )
    changed = {"nodes": 2, "nodes_max": 4, "gpus_per_node": 4, "tasks_per_node": 4, "time_min": 240}
    changed |= {"scratch": "/s", "qos": "long", "partition": "p", "account": "a"}
    assert profile == before.model_copy(update=changed)
    assert not once


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "demo", "--cluster", "h100", "--time", "4h"], "--time: cannot read '4h'"),
        (["submit", "demo", "--cluster", "h100", "--nodes", "4-2"], "--nodes: cannot read '4-2'"),
        (["submit", "demo", "--cluster", "h100", "--set-cluster", "qso=x"], "did you mean 'qos'?"),
        (["submit", "demo", "--cluster", "h100", "--set-cluster", "x"], "--set-cluster sbatch.mail-type=END"),
        (["submit", "demo", "--cluster", "h100", "--after", "nowhere"], "neither a run folder nor the id"),
        (["submit", "demo", "--cluster", "h100", "--after-any"], "--after-any goes with --after"),
        (["submit", "demo", "--after", "12"], "only Slurm can start one job after another"),
        (["submit", "demo", "--partition", "gpu"], "partition is for Slurm only"),
        (["data", "build", "demo-data", "out", "--time", "10"], "add --cluster PROFILE"),
        (["evaluate", "nowhere", "--after", "12"], "add --cluster PROFILE"),
        (["doctor", "--nodes", "2"], "add --cluster PROFILE"),
    ],
)  # fmt: skip
def test_mistakes_are_told(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = bigchem(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr, done.stderr
    assert not any(tmp_path.iterdir())


def test_a_field_that_a_sweep_sets_for_a_size_is_not_given_for_all(tmp_path: Path) -> None:
    grid = 'name = "s"\nbase = "demo"\nsizes = ["sweep-1m"]\n[mixtures.all]\n[resources.sweep-1m]\ntime_min = 9\n'
    (tmp_path / "s.toml").write_text(grid)
    done = bigchem("sweep", "submit", "s.toml", "--cluster=h100", "--time=5", cwd=tmp_path)
    assert done.returncode == 2
    assert "resources.sweep-1m already sets time_min" in done.stderr, done.stderr


def test_the_dry_runs_of_the_help_run(small_data: Path, tmp_path: Path) -> None:
    verbs = [command_at(path) for path in PATHS if path[0] not in ("bench", "push")]
    dry = [line for verb in verbs for line in examples(verb) if line.endswith("--dry-run")]
    assert len(dry) >= 3
    for example in dry:
        words = [word.replace("slurm/clusters/h100.toml", "h100") for word in shlex.split(example)[1:]]
        section = "base_set." if words[0] == "sweep" else ""
        fields = ["--set", f"{section}data.path={small_data}", "--set", f"{section}validation.every=0"]
        done = bigchem(*words, *fields, cwd=tmp_path)
        assert done.returncode == 0, f"{example}\n{done.stderr}"
        assert "--nodes 2-4" not in example or "#SBATCH --nodes=2-4\n" in done.stdout
        assert not any(tmp_path.iterdir())


def test_after_a_run_is_nothing_where_it_succeeded_and_refused_where_it_failed(tmp_path: Path) -> None:
    for name, state in (("done", "finished"), ("bad", "failed"), ("trained", "trained"), ("unevaluated", "trained")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
        (tmp_path / name / "state.json").write_text(f'{{"state": "{state}", "step": 5, "steps": 5, "time": 0.0}}')
    (tmp_path / "trained" / "config.toml").write_text(
        'name = "trained"\ndata = { path = "d", global_tokens = 2048, micro_tokens = 2048 }\ntrain = { steps = 1000 }\n'
        "evaluate = { at_end = false }\n"
    )
    for name in ("done", "trained"):
        assert read_options(after=[str(tmp_path / name)]).resolve("h100")[1].after == ()
    with pytest.raises(UserError, match="it is trained, but not evaluated: a job that waits"):
        read_options(after=[str(tmp_path / "unevaluated")]).resolve("h100")
    with pytest.raises(UserError, match="it is failed: a job that waits for it would never start"):
        read_options(after=[str(tmp_path / "bad")]).resolve("h100")
    assert read_options(after=[str(tmp_path / "bad")], after_any=True).resolve("h100")[1].after == ()
