"""owner.json of a run folder: which job or process owns the run. bigchem.launch.runs.owner decides who may.

Each attempt writes a record with its own token, under a lock. Rank 0 compares the token before it publishes anything: a
process that was taken for dead, or replaced from another cluster, exits instead of writing into the new owner's run.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.file_lock import NoLocksError, lock
from bigchem.base.json_file import Count, Moment, RecordError
from bigchem.base.printable import printable
from bigchem.run import state as states
from bigchem.run.lifecycle import End, State, Writer

FILE = "owner.json"
LIFE = "owner.alive"
OLDER = "submission.json"
JobId = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=100)]
"""Slurm's, or a pid; never what a Slurm program would read as an option."""
_life: dict[Path, IO[bytes]] = {}
"""Files whose lock this process holds until it releases the run or exits."""
CHECK_EVERY_S = 2.0
"""Seconds between a training run's checks of its owner record."""
PROBE_S = 2.0
"""Seconds for which another process's probe may hold that lock."""


@dataclass(frozen=True)
class Process:
    """A process of a machine, distinct from later ones with the same pid.

    boot: id of the machine's current boot, shared by its containers. namespace: of the pid. started: kernel ticks since
    boot. Empty and 0 where unknown (no /proc).
    """

    host: str
    boot: str
    namespace: str
    pid: Annotated[int, Field(ge=0, lt=1 << 31)]
    started: Count

    @classmethod
    def of(cls, pid: int) -> Process:
        """A process of this machine, as it is now."""
        return cls(platform.node(), boot_id(), pid_namespace(), pid, started(pid) or 0)

    @classmethod
    def here(cls) -> Process:
        """This process."""
        return cls.of(os.getpid())


@dataclass(frozen=True)
class Owner:
    """A run's owner.

    executor: slurm, local (submitit's), or here (started by the user; cluster and job may still be set). job: Slurm's
    id, or a pid. restart: earlier starts by Slurm or torchrun. launch: torchrun's run id, or the Slurm step. process:
    rank 0's, or the local executor's; None until a Slurm job has started. released: when it released the run.
    evaluation, world_size, code, output: of the submission. round: earlier starts by torchrun within this start of the
    job. folder, inode: of the run folder, to tell it from a copy.
    """

    token: str
    executor: str
    job: JobId
    user: str
    time: Moment
    cluster: str | None = None
    restart: Count = 0
    launch: str = ""
    process: Process | None = None
    released: Moment | None = None
    evaluation: JobId | None = None
    world_size: Count | None = None
    code: str | None = None
    output: str | None = None
    round: Count = 0
    folder: str = ""
    inode: int = 0

    @property
    def on_slurm(self) -> bool:
        """Whether a Slurm job owns the run, submitted by bigchem or by the user's own sbatch."""
        return self.executor == "slurm" or self.cluster is not None

    def __str__(self) -> str:
        if self.on_slurm:
            return f"job {self.job}" + (f" of cluster {printable(self.cluster)}" if self.cluster else "")
        host = f" on {printable(self.process.host)}" if self.process else ""
        return f"process {self.job}{host}"


class DisownedError(UserError):
    """This attempt no longer owns the run."""


def read(run_dir: Path) -> Owner | None:
    """The run's owner; None if it never had one. UserError if the record cannot be read: its owner may be training."""
    file = run_dir / FILE
    try:
        table = json_file.load(file)
    except FileNotFoundError:
        return _of_older_version(run_dir / OLDER)
    except RecordError as error:
        raise _no_record(error, file) from None
    owner = parsed(table, str(file))
    return None if owner.folder and _is_copy(run_dir, owner) else owner


def parsed(table: Any, where: str) -> Owner:
    """A record from its JSON, without keys of later versions. RecordError if it is not one."""
    try:
        return json_file.as_kind(Owner, table, where)
    except RecordError as error:
        raise _no_record(error, where) from None


def _no_record(error: RecordError, where: str | Path) -> RecordError:
    return RecordError(f"not an owner record: {error.what}", str(where), "if nothing trains this run, remove it")


def write(run_dir: Path, owner: Owner) -> None:
    """Replaces the record. The caller holds the run's lock."""
    owner = replace(owner, folder=str(run_dir.resolve()), inode=run_dir.stat().st_ino)
    atomic.write_atomically(run_dir / FILE, json.dumps(asdict(owner), indent=1), make_folder=False)


def _is_copy(run_dir: Path, owner: Owner) -> bool:
    """Whether the record came with a copy of another run folder. A folder that was moved, or is mounted elsewhere, is
    not a copy."""
    return str(run_dir.resolve()) != owner.folder and run_dir.stat().st_ino != owner.inode


def _of_older_version(file: Path) -> Owner | None:
    """The record of versions before owner.json, which cannot identify a process."""
    try:
        table = json_file.load_object(file)
        older = {"token": "", "executor": table["executor"], "job": str(table["job"]), "user": "?"}
        return json_file.as_kind(Owner, {**older, "time": table.get("time", 0.0)}, str(file))
    except (OSError, RecordError, KeyError):
        return None


@dataclass(frozen=True)
class Claim:
    """An attempt's ownership of a run. token: of its record; None: no launcher started this, and nothing is checked."""

    run_dir: Path
    token: str | None = None

    def check(self) -> None:
        """DisownedError if the run now has another owner, or no folder."""
        if self.token is None:
            return
        if not self.run_dir.is_dir():
            raise DisownedError("the run folder was removed", str(self.run_dir), "nothing more is written")
        owner = read(self.run_dir)
        if owner is None:
            hint = "nothing more is written: start it again if that was a mistake"
            raise DisownedError("the run's owner record was removed", str(self.run_dir / FILE), hint)
        if owner.token != self.token:
            since = time.strftime("%d %b %H:%M:%S", time.localtime(owner.time))
            raise DisownedError(
                f"the run was taken over by {owner} ({owner.user}, {since})",
                str(self.run_dir),
                "bigchem status shows it",
            )

    def holds(self) -> bool:
        """Whether this attempt still owns the run; True if the record cannot be read now."""
        try:
            self.check()
        except DisownedError:
            return False
        except (OSError, UserError):
            return True
        return True

    def move(self, writer: Writer, state: State, **more: Any) -> bool:
        """state.move, if this attempt still owns the run."""
        return self.holds() and states.move(self.run_dir, writer, state, **more)

    def end(self, writer: Writer, how: End, reason: str = "", **more: Any) -> bool:
        """state.end, if this attempt still owns the run."""
        return self.holds() and states.end(self.run_dir, writer, how, reason, **more)


class OwnershipWatch:
    """Checks every CHECK_EVERY_S whether a claim still holds: reading the record over a network takes time."""

    def __init__(self, claim: Claim) -> None:
        self._claim, self._next, self._lost = claim, 0.0, False

    def lost(self, now: float) -> bool:
        """Whether another attempt was found to own the run. now: seconds of a monotonic clock."""
        if not self._lost and now >= self._next:
            self._next = now + CHECK_EVERY_S
            self._lost = not self._claim.holds()
        return self._lost


def lock_liveness(run_dir: Path) -> None:
    """Locks the run's liveness file for as long as this process, rank 0, lives; the kernel releases the lock."""
    unlock_liveness(run_dir)
    with suppress(OSError, NoLocksError):
        file = _life[run_dir] = (run_dir / LIFE).open("wb")
        deadline = time.monotonic() + PROBE_S
        while not lock(file, wait=False) and time.monotonic() < deadline:  # another process is probing it
            time.sleep(0.01)


def unlock_liveness(run_dir: Path) -> None:
    """Releases that lock."""
    if run_dir in _life:
        with _life.pop(run_dir) as file, suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # now, even if a child process has inherited the file


def liveness_is_locked(run_dir: Path) -> bool | None:
    """Whether the run's rank 0 holds that lock; None if the file system has no locks."""
    try:
        with (run_dir / LIFE).open("rb") as file:
            return not lock(file, wait=False, shared=True)
    except FileNotFoundError:
        return False
    except (OSError, NoLocksError):
        return None


def boot_id() -> str:
    """The kernel's id of the current boot."""
    return _text("/proc/sys/kernel/random/boot_id")


def pid_namespace() -> str:
    """This process's pid namespace: a container's, or the machine's."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def started(pid: int) -> int | None:
    """When a process started, in kernel ticks since boot; None if there is no such process, or it is a zombie."""
    stat = _text(f"/proc/{pid}/stat")
    try:
        state, *rest = stat.rsplit(")", 1)[1].split()
        return None if state in "ZX" else int(rest[18])  # field 22 of proc(5)
    except (IndexError, ValueError):
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
