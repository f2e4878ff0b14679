"""Which node is to blame for a failed attempt, and which nodes the next attempt excludes. Pure.

A node is blamed if a rank on it died of a signal, hung, or did not come, or if Slurm lost the node. Failures of what
all nodes share (the network, the file system, the program) are no node's fault.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bigchem.launch.rendezvous.environment import expand_nodelist
from bigchem.run.lifecycle import End

LIMIT = 2
"""Failed attempts after which a job excludes a node."""
BLAMING = (End.LOST_RANK, End.ABSENT_RANK, End.HUNG, End.KILLED, End.VANISHED)
"""Ends that may be a node's fault."""
GONE = ("down", "drain", "fail", "error", "unk", "maint", "no_respond", "powering_down", "reboot", "inval", "futur")
"""Prefixes of the states in which a node starts no job. Nor does it if its state ends with `*`: it does not respond."""

_LOST_NODE = re.compile(r"srun: error: Node failure on (\S+)")
_TASKS = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): (.+)")
_ENDED = re.compile(r"srun: (launch/slurm: _step_signal: |Force )?Terminat")
"""From this line on, srun itself ends the other tasks."""
_BY_SIGNAL = re.compile(
    r"Killed|Segmentation|Abort|Bus error|Illegal|Floating|Trace|Out Of Memory|Exited with exit code 13[1-9]"
)
"""Without SIGTERM and SIGUSR2, which are sent on purpose. A container's shell exits with 128 plus the signal."""
_ABSENT = re.compile(r"\(of nodes? ([^)]*)\) did not come")
_STUCK = re.compile(r"rank (\d+) \(([^,()]+), pid \d+\) stuck in")
_DEAD = re.compile(r"(?:rank (\d+)|each of \d+ ranks \(([\d ]+)(?: \.\.\.)?\)) left no record")


def blamed(end: str, why: str, output: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """The nodes to blame for a failed attempt, sorted; empty if unknown.

    end, why: as in history.Attempt. output: srun's lines. hosts: the node of each rank; empty if unknown.
    """
    if end not in BLAMING:
        return []
    found = {*_by_reason(why, hosts), *_by_srun(output)}
    nodes = set(hosts)
    return [] if len(nodes) > 1 and nodes <= found else sorted(found)


def _by_srun(output: Sequence[str]) -> set[str]:
    found: set[str] = set()
    own = True
    for line in output:
        own = own and _ENDED.match(line) is None
        if lost := _LOST_NODE.match(line):
            found |= set(expand_nodelist(lost[1].rstrip(".,")))
        elif own and (task := _TASKS.match(line)) and _BY_SIGNAL.match(task[3]):
            found |= set(expand_nodelist(task[1]))
    return found


def _by_reason(why: str, hosts: Sequence[str]) -> set[str]:
    found = {node.strip() for text in _ABSENT.findall(why) for node in text.split(",")}
    found |= {host for _, host in _STUCK.findall(why)}
    ranks = [int(rank) for one, several in _DEAD.findall(why) for rank in (one or several).split()]
    return found | {hosts[rank] for rank in ranks if rank < len(hosts)}


def hosts_of(nodelist: str, ranks: int) -> list[str]:
    """The node of each rank if ranks fill node by node, equally many on each. Empty if they do not divide evenly."""
    nodes = expand_nodelist(nodelist) if nodelist and ranks else []
    if not nodes or ranks % len(nodes):
        return []
    each = ranks // len(nodes)
    return [node for node in nodes for _ in range(each)]


def repeatedly_failing(failures: Iterable[str], limit: int = LIMIT) -> list[str]:
    """Nodes named in at least `limit` attempts, sorted. failures: each attempt's nodes, separated by commas."""
    counts: dict[str, int] = {}
    for text in failures:
        for node in {name for name in text.split(",") if name}:
            counts[node] = counts.get(node, 0) + 1
    return sorted(node for node, count in counts.items() if count >= limit)


@dataclass(frozen=True)
class Exclusion:
    """What to do about bad nodes. nodes: the job's complete exclude list; empty: leave it unchanged. note: for logs."""

    nodes: tuple[str, ...] = ()
    note: str = ""


def exclusion(bad: Collection[str], already: Collection[str], usable: Collection[str], needed: int) -> Exclusion:
    """Adds bad nodes to those that a job already excludes, unless too few would be left for it to start.

    usable: nodes that could run the job. needed: the fewest it can run on.
    """
    new = sorted(set(bad) - set(already))
    if not new:
        return Exclusion()
    left = set(usable) - set(already) - set(new)
    names, single = ", ".join(new), len(new) == 1
    failed = f"{names} failed {LIMIT} attempts"
    if len(left) < needed:
        return Exclusion(note=f"{failed}: not excluded, as the job needs {needed} and {len(left)} would be left")
    return Exclusion(tuple(sorted({*already, *new})), f"{failed}: {'it is' if single else 'they are'} excluded")


def usable(sinfo: str, features: str = "") -> list[str] | None:
    """Nodes that could run a job, from lines `name|state|features|partition`; None for a constraint other than a list
    of required features (`a&b`)."""
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


def facts(output: str) -> dict[str, str]:
    """The words `Name=value` of `scontrol --oneliner show job`; the first of each name counts."""
    found: dict[str, str] = {}
    for word in output.split():
        name, equals, value = word.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def excluded(job: Mapping[str, str]) -> list[str]:
    """The nodes that a job excludes, from its facts."""
    text = job.get("ExcNodeList", "(null)")
    return [] if text in ("(null)", "") else expand_nodelist(text)


def fewest(job: Mapping[str, str]) -> int:
    """The fewest nodes that a job needs, from its facts: `2`, or `1-2`."""
    found = re.match(r"\d+", job.get("NumNodes", ""))
    return int(found[0]) if found else 1
