"""Which node a failed attempt is to be blamed on, and which nodes the next one does without. Pure.

A node is blamed when a rank on it died of a signal, stood still, or did not come, and when Slurm lost the node. What
all nodes of an attempt share (the network, the file system, the program) is no node's fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bigchem.launch.rendezvous.environment import expand_nodelist
from bigchem.run.lifecycle import End

LIMIT = 2
"""Attempts that a node may fail before the job does without it."""
BLAMING = (End.LOST_RANK, End.ABSENT_RANK, End.HUNG, End.KILLED, End.VANISHED)
"""Ends that may be a node's fault."""
GONE = ("down", "drain", "fail", "error", "unk", "maint", "no_respond", "powering_down", "reboot", "inval", "futur")
"""How the states begin in which a node starts no job; so does any whose name ends with `*`: it does not answer."""

_LOST_NODE = re.compile(r"srun: error: Node failure on (\S+)")
_TASKS = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): (.+)")
_ENDED = re.compile(r"srun: (launch/slurm: _step_signal: |Force )?Terminat")
"""From here on srun itself ends the other tasks."""
_BY_SIGNAL = re.compile(
    r"Killed|Segmentation|Abort|Bus error|Illegal|Floating|Trace|Out Of Memory|Exited with exit code 13[1-9]"
)
"""Not SIGTERM and SIGUSR2, which somebody sends on purpose. A container's shell exits with 128 and the signal."""
_ABSENT = re.compile(r"\(of nodes? ([^)]*)\) did not come")
_STANDS = re.compile(r"rank (\d+) \(([^,()]+), pid \d+\) stands in")
_DEAD = re.compile(r"(?:rank (\d+)|each of \d+ ranks \(([\d ]+)(?: \.\.\.)?\)) left no record")


def blamed(end: str, why: str, said: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """The nodes that failed an attempt, sorted; none where that is not known.

    end, why: as in history.Attempt. said: what srun printed. hosts: the node of each rank; empty if not known.
    """
    if end not in BLAMING:
        return []
    found = {*_by_reason(why, hosts), *_by_srun(said)}
    nodes = set(hosts)
    return [] if len(nodes) > 1 and nodes <= found else sorted(found)


def _by_srun(said: Sequence[str]) -> set[str]:
    found: set[str] = set()
    own = True
    for line in said:
        own = own and _ENDED.match(line) is None
        if lost := _LOST_NODE.match(line):
            found |= set(expand_nodelist(lost[1].rstrip(".,")))
        elif own and (task := _TASKS.match(line)) and _BY_SIGNAL.match(task[3]):
            found |= set(expand_nodelist(task[1]))
    return found


def _by_reason(why: str, hosts: Sequence[str]) -> set[str]:
    found = {node.strip() for text in _ABSENT.findall(why) for node in text.split(",")}
    found |= {host for _, host in _STANDS.findall(why)}
    ranks = [int(rank) for one, several in _DEAD.findall(why) for rank in (one or several).split()]
    return found | {hosts[rank] for rank in ranks if rank < len(hosts)}


def hosts_of(nodelist: str, ranks: int) -> list[str]:
    """The node of each rank, where ranks fill node by node, as many on each. Empty if they do not come out even."""
    nodes = expand_nodelist(nodelist) if nodelist and ranks else []
    if not nodes or ranks % len(nodes):
        return []
    each = ranks // len(nodes)
    return [node for node in nodes for _ in range(each)]


def repeatedly_failing(failures: Iterable[str], limit: int = LIMIT) -> list[str]:
    """Nodes that are named in at least so many attempts, sorted. failures: of each attempt, separated by commas."""
    counts: dict[str, int] = {}
    for text in failures:
        for node in {name for name in text.split(",") if name}:
            counts[node] = counts.get(node, 0) + 1
    return sorted(node for node, count in counts.items() if count >= limit)


@dataclass(frozen=True)
class Exclusion:
    """What to do about nodes. nodes: the job's whole list to exclude, or empty: leave it as it is. note: in words."""

    nodes: tuple[str, ...] = ()
    note: str = ""


def exclusion(bad: Collection[str], already: Collection[str], usable: Collection[str], needed: int) -> Exclusion:
    """Adds bad nodes to those that a job excludes already, unless too few would be left for it to start.

    usable: nodes that could run the job. needed: how many it takes at least.
    """
    new = sorted(set(bad) - set(already))
    if not new:
        return Exclusion()
    left = set(usable) - set(already) - set(new)
    names, one = ", ".join(new), len(new) == 1
    failed = f"{names} failed {LIMIT} attempts"
    if len(left) < needed:
        return Exclusion(note=f"{failed}: not excluded, as the job needs {needed}, and {len(left)} would be left")
    return Exclusion(tuple(sorted({*already, *new})), f"{failed}: {'it is' if one else 'they are'} excluded")


def usable(sinfo: str, features: str = "") -> list[str] | None:
    """Nodes that could run a job, of lines `name|state|features|partition`; None for a constraint that is not a list
    of features that a node must have (`a&b`)."""
    wanted = [] if features in ("", "(null)") else features.split("&")
    if any(not re.fullmatch(r"[\w.:-]+", word) for word in wanted):
        return None
    rows = [line.split("|") for line in sinfo.splitlines() if line.count("|") >= 2]
    return sorted(
        {
            row[0]
            for row in rows
            if not row[1].startswith(GONE) and not row[1].endswith("*") and set(wanted) <= set(row[2].split(","))
        }
    )


def facts(told: str) -> dict[str, str]:
    """The words `Name=value` of `scontrol --oneliner show job`; the first of a name counts."""
    found: dict[str, str] = {}
    for word in told.split():
        name, equals, value = word.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def excluded(job: Mapping[str, str]) -> list[str]:
    """The nodes that a job excludes, of its facts."""
    text = job.get("ExcNodeList", "(null)")
    return [] if text in ("(null)", "") else expand_nodelist(text)


def fewest(job: Mapping[str, str]) -> int:
    """The nodes that a job needs at least, of its facts: `2`, or `1-2`."""
    found = re.match(r"\d+", job.get("NumNodes", ""))
    return int(found[0]) if found else 1
