"""Which node is to blame for a failed attempt, and which the next one excludes. srun's lines are real ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.members import absent_ranks
from bigchem.launch.slurm import job_output, nodes
from bigchem.train.health.watchdog import Heartbeat, verdict

HOSTS = ("node1", "node1", "node2", "node2")
KILLED = [
    "bigchem: start 0",
    "srun: error: node2: task 3: Killed",
    "srun: launch/slurm: _step_signal: Terminating StepId=4382002.0",
    "srun: error: node2: task 2: Exited with exit code 75",
    "srun: error: node1: task 1: Killed",
]
NODE_FAIL = [
    "srun: error: Node failure on node2",
    "srun: error: node1: tasks 0-1: Terminated",
]


@pytest.mark.parametrize(
    ("end", "said_", "found"),
    [
        ("lost rank", KILLED, ["node2"]),
        ("vanished", NODE_FAIL, ["node2"]),
        ("killed", ["srun: error: gpu[03,07]: tasks 0,9: Segmentation fault (core dumped)"], ["gpu03", "gpu07"]),
        ("killed", ["srun: error: node1: task 0: Exited with exit code 137"], ["node1"]),  # a container's shell
        ("lost rank", ["srun: error: node1: task 0: Exited with exit code 75"], []),  # it exited by itself
        ("preempted", ["srun: error: node2: tasks 2-3: Terminated"], []),
        ("error", KILLED, []),  # a rank had reported what is wrong with the run
        ("killed", ["srun: error: node1: task 0: Killed", "srun: error: node2: task 2: Killed"], []),  # all of them
        ("killed", [], []),
    ],
)
def test_srun_tells_which_node_failed(end: str, said_: list[str], found: list[str]) -> None:
    assert nodes.blamed(end, "", said_, HOSTS) == found


def test_a_job_of_one_node_blames_it() -> None:
    assert nodes.blamed("killed", "", ["srun: error: node1: task 0: Killed"], ["node1", "node1"]) == ["node1"]


def test_the_roll_call_and_the_watchdog_name_nodes() -> None:
    place = Rendezvous(0, 4, 0, "node1", 20000, "slurm", nodes=HOSTS)
    assert nodes.blamed("absent rank", absent_ranks(place, [0, 1], 60), [], HOSTS) == ["node2"]
    records = [
        Heartbeat(rank, 7, phase, beats, 90.0, HOSTS[rank], 100 + rank, "loop.py:1", None)
        for rank, phase, beats in ((0, "gradients", 9), (1, "gradients", 9), (2, "gradients", 9), (3, "data", 8))
    ]
    assert nodes.blamed("hung", verdict(records, 4), [], HOSTS) == ["node2"]
    assert nodes.blamed("hung", verdict(records[:2], 4), [], HOSTS) == ["node2"]  # the others left no record


def test_each_start_of_a_job_has_its_own_lines() -> None:
    lines = [*KILLED, "bigchem: start 1", *NODE_FAIL, "bigchem: start 2", "fine"]
    assert job_output.of_start(lines, 0) == KILLED
    assert job_output.of_start(lines, 1)[1:] == NODE_FAIL
    assert job_output.of_start(lines) == ["bigchem: start 2", "fine"]
    assert job_output.of_start(lines, 7) == []


names = st.sets(st.sampled_from([f"n{number}" for number in range(8)]))


@given(bad=names, already=names, usable=names, needed=st.integers(1, 8))
def test_an_exclusion_keeps_what_a_person_excluded_and_leaves_enough_nodes(
    bad: set[str], already: set[str], usable: set[str], needed: int
) -> None:
    found = nodes.exclusion(bad, already, usable, needed)
    if found.nodes:
        assert set(found.nodes) == already | bad
        assert len(usable - set(found.nodes)) >= needed
        assert "excluded" in found.note
    else:
        assert bad <= already or len(usable - already - bad) < needed
    assert (found.note == "") == (bad <= already)


@given(failures=st.lists(names))
def test_a_node_is_worn_out_by_two_attempts_whatever_else_failed_in_them(failures: list[set[str]]) -> None:
    found = nodes.repeatedly_failing(",".join(sorted(one)) for one in failures)
    assert found == sorted(n for n in set().union(*failures) if sum(n in one for one in failures) >= nodes.LIMIT)


def test_an_exclusion_says_whom_and_why_not() -> None:
    assert nodes.exclusion(["node2"], [], ["node1", "node2"], 1).note == "node2 failed 2 attempts: it is excluded"
    assert nodes.exclusion(["node2"], [], ["node1", "node2"], 2).note == (
        "node2 failed 2 attempts: not excluded, as the job needs 2 and 1 would be left"
    )


def test_slurms_words_on_nodes_and_jobs() -> None:
    rows = "a|idle|gpu,ib|p*\na|idle|gpu,ib|q\nb|down*|gpu|p*\nc|mixed|gpu|p*\nd|idle*|gpu|p*\ne|draining|gpu|p*\n"
    assert nodes.usable(rows) == ["a", "c"]
    assert nodes.usable(rows, "gpu&ib") == ["a"]
    assert nodes.usable(rows, "gpu|ib") is None
    job = nodes.facts("JobId=7 JobName=x ExcNodeList=gpu[1-2,7] NumNodes=2-4 Command=/x NumNodes=9")
    assert (nodes.excluded(job), nodes.fewest(job)) == (["gpu1", "gpu2", "gpu7"], 2)
    assert nodes.excluded(nodes.facts("ExcNodeList=(null)")) == []
