"""When a pending job continues with fewer nodes. tests/slurm/test_elastic_on_slurm.py does it on the testbed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from owners import owned

from bigchem.base import atomic, toml
from bigchem.launch import elastic_restart
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.elastic_restart import Decision, Watcher, decide
from bigchem.launch.runs.owner import mark_cancelled
from bigchem.launch.slurm import squeue

NOW = 1_800_000_000.0


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at))


def waiting(since_s: float, tasks: int = 4, reason: str = "Resources") -> dict[str, str]:
    return {
        "JobState": "PENDING",
        "Reason": reason,
        "SubmitTime": moment(NOW - since_s),
        "NumTasks": str(tasks),
        "CPUs/Task": "3",
    }


@pytest.mark.parametrize(
    ("job", "found"),
    [
        (waiting(700), Decision(widen=True, again_s=600)),
        (waiting(200), Decision(widen=False, again_s=400)),  # until it has waited long enough
        (waiting(599), Decision(widen=False, again_s=elastic_restart.SOON_S)),
        (waiting(700, tasks=2), Decision(widen=False, again_s=600)),  # it accepts fewer already
        (waiting(700, reason="JobHeldUser"), Decision(widen=False, again_s=60)),
        (waiting(700, reason="BeginTime"), Decision(widen=False, again_s=60)),
        ({**waiting(700), "JobState": "RUNNING"}, Decision(widen=False, again_s=600)),
        ({**waiting(700), "JobState": "COMPLETING"}, Decision(widen=False, again_s=600)),
        ({**waiting(700), "JobState": "CANCELLED"}, Decision(widen=False, again_s=None)),
        (None, Decision(widen=False, again_s=None)),
    ],
)
def test_a_job_gets_fewer_nodes_when_it_has_waited_for_them_and_not_before(
    job: dict[str, str] | None, found: Decision
) -> None:
    assert decide(job, 2, 600.0, NOW) == found


@given(since_s=st.integers(0, 10**6), after_s=st.integers(60, 10**5))
def test_the_next_look_is_never_later_than_the_wait_allows(since_s: int, after_s: int) -> None:
    found = decide(waiting(since_s), 2, after_s, NOW)
    assert found.widen == (since_s >= after_s)
    assert found.widen or found.again_s == max(elastic_restart.SOON_S, after_s - since_s)


def test_every_state_of_a_job_that_is_gone_ends_the_watch() -> None:
    assert all(decide({"JobState": state}, 2, 600.0, NOW).again_s is None for state in squeue.GONE)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8), st.integers(1, 16))
def test_the_smaller_job_has_the_profiles_range_and_the_tasks_and_cores_of_its_fewest_nodes(
    fewest: int, more: int, ranks: int, cores: int
) -> None:
    profile = ClusterProfile(
        executor="slurm", nodes=fewest, nodes_max=fewest + more, tasks_per_node=ranks, elastic_after_min=5
    )
    assert elastic_restart.widened(profile, {"CPUs/Task": str(cores)}) == [
        f"NumNodes={fewest}-{fewest + more}",
        f"NumTasks={fewest * ranks}",
        f"NumCPUs={fewest * ranks * cores}",
    ]


def profile_of(**fields: object) -> ClusterProfile:
    given = {"nodes": 1, "nodes_max": 2, "elastic_after_min": 15, "account": "chem", **fields}
    return ClusterProfile.model_validate({**load_profile("testbed").model_dump(), **given})


def test_a_watcher_asks_for_one_core_in_the_jobs_queue_or_in_another_partition(tmp_path: Path) -> None:
    own = elastic_restart.options(profile_of(sbatch={"reservation": "chem", "exclusive": True}), "x", tmp_path / "log")
    assert {"--nodes=1", "--ntasks=1", "--partition=test", "--account=chem", "--begin=now+900"} <= set(own)
    assert "--reservation=chem" in own
    assert not any("exclusive" in word or "gpu" in word for word in own)
    assert "--partition=cpu" in elastic_restart.options(profile_of(elastic_partition="cpu"), "x", tmp_path / "log")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes_max": None}, "give nodes, the fewest, and nodes_max"),
        ({"nodes": 2}, "give nodes, the fewest, and nodes_max"),
        ({"max_requeues": 0}, "never restarted"),
        ({"elastic_after_min": None, "elastic_partition": "cpu"}, "no elastic_after_min"),
    ],
)
def test_a_profile_that_could_never_shrink_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profile_of(**fields)


def test_a_watcher_ends_when_its_run_is_another_jobs_or_cancelled(tmp_path: Path) -> None:
    has = owned(tmp_path)
    mine = Watcher("99", has.job)
    assert elastic_restart.is_watched(tmp_path, mine)
    assert not elastic_restart.is_watched(tmp_path, Watcher("99", "1" + has.job))
    mark_cancelled(tmp_path, has)
    assert not elastic_restart.is_watched(tmp_path, mine)
    (tmp_path / elastic_restart.FILE).write_text(json.dumps(asdict(mine)))
    atomic.write_atomically(tmp_path / "cluster.toml", toml.dump(profile_of()))
    assert elastic_restart.main(tmp_path, {"SLURM_JOB_ID": "98"}) == 0  # an older watcher leaves the record alone
    assert elastic_restart.read(tmp_path) == mine
    assert elastic_restart.main(tmp_path, {"SLURM_JOB_ID": "99"}) == 0
    assert elastic_restart.read(tmp_path) is None


def test_a_watcher_that_waited_for_a_resubmission_leaves_the_record_of_the_next(tmp_path: Path) -> None:
    mine, next_one = Watcher("99", "7"), Watcher("100", "8")
    owned(tmp_path, "8")
    (tmp_path / elastic_restart.FILE).write_text(json.dumps(asdict(next_one)))
    assert elastic_restart.check_once(tmp_path, profile_of(), mine) is None
    assert elastic_restart.read(tmp_path) == next_one


def test_a_job_that_lost_the_run_leaves_the_watcher_of_the_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(elastic_restart.client, "ask", lambda *words, **options: asked.append(words))
    monkeypatch.setattr(elastic_restart.client, "cluster_name", lambda: None)
    atomic.write_atomically(tmp_path / elastic_restart.FILE, json.dumps(asdict(Watcher("8", "7"))))
    elastic_restart.stop(tmp_path, "6")
    assert elastic_restart.read(tmp_path) == Watcher("8", "7")
    assert asked == []
    elastic_restart.stop(tmp_path, "7")
    assert elastic_restart.read(tmp_path) is None
    assert asked == [("scancel", "8")]
