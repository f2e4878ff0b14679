"""A thread of each rank that ends the run when it stands still, and says which rank is to blame.

The loop beats with the phase that it enters. Where no beat comes for `health.hang_s` of the process's own time, the
stacks of all threads go into the rank's log, and its record and what torch's flight recorder holds into health/. A
first record calls the other ranks to write theirs; after a pause every rank reads all of them. Collective operations
make all ranks wait for the slowest, so that the rank with the fewest beats is the one that the others wait for; a rank
that left no record is dead, or frozen with all its threads. On a GPU the beats that count are those that the device
has come to: the host has given it more, and waits for it as its peers' hosts do.

The thread also ends a run whose folder has been removed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import bigchem
from bigchem.base import atomic, json_file
from bigchem.base.json_file import RecordError
from bigchem.run import notify
from bigchem.run.exit_codes import call_with_timeout, exit_code_after, exit_now
from bigchem.run.lifecycle import EXIT_REQUEUE, End, Writer, has_ended
from bigchem.run.log_files import Log, try_write
from bigchem.run.ownership import Claim
from bigchem.run.state import read_state
from bigchem.train.collectives import on_rank0
from bigchem.train.health import events, flight_recorder, peers
from bigchem.train.health.device_progress import DeviceProgress
from bigchem.train.health.process_clock import ProcessClock

PATIENT = {"prepare": 4, "save": 4, "validate": 4, "profile": 4, "download": 8, "resume": 8}
"""Phases that may take so many times as long: large files, a compilation. `prepare` ends with the first step; a
checkpoint that is resumed may have to be fetched and then hashed in one phase."""
LONGEST = timedelta(days=7)
"""Of a collective operation: a job may be suspended in the middle of one, and its timeout counts on meanwhile."""
MARGIN_S = 300.0
"""That a collective operation goes on beyond the time in which the watchdogs find a hang, and tell it."""
LOOK_S = 5.0
"""Between two looks at the run folder, at most: of 500 ranks, a hundred look every second."""
DUMP_S = 10.0
"""For the flight recorder and the device to answer: a driver may be what hangs."""
SILENT = ("an unknown phase: it does not answer", 0)
"""Of a GPU that cannot be asked how far it is: it is further back than any that can."""
Requeue = Callable[[bool], int]
NAMED = 4
"""Ranks that a line names."""


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank stands. beats: how often it went on. still_s: seconds since the last time. where: of its main
    thread. device: the phase that its GPU is in, with its beats; None on a CPU, and of a GPU that does not say."""

    rank: int
    step: int
    phase: str
    beats: int
    still_s: float
    host: str
    pid: int
    where: str
    device: tuple[str, int] | None = None

    @property
    def reached(self) -> int:
        """The beats by which ranks are compared."""
        return self.beats if self.device is None else self.device[1]


class Watchdog:
    """While entered, watches this rank. Every rank enters it. hang_s = 0: only the run folder is watched.

    requeue: gives the exit code by which the launcher starts the job again; called with True, by one rank, it tells the
    launcher first. device: of this rank. claim: on the run; None where no launcher made one. on_look: gets the steps
    done and this process's own time, about once a second. clock: seconds of that time.
    """

    def __init__(
        self,
        run_dir: Path,
        rank: int,
        world_size: int,
        hang_s: float,
        requeue: Requeue,
        device: DeviceProgress | None = None,
        claim: Claim | None = None,
        on_look: Callable[[int, float], object] = lambda step, now: None,
    ) -> None:
        self._run_dir, self._rank, self._world_size, self._hang_s = run_dir, rank, world_size, hang_s
        self._requeue, self._device, self._claim = requeue, device, claim or Claim(run_dir)
        self._on_look = on_look
        self._folder = run_dir / "health"
        self._main = threading.main_thread().ident or 0
        self._pause_s = min(LOOK_S, hang_s / 5) if hang_s else LOOK_S
        self._tick_s = min(1.0, self._pause_s)
        self.clock = ProcessClock(self._tick_s)
        self._now = (0, "prepare", 0, self.clock())
        self._steps_begun = 0
        self._called = self._folder / "called"
        self._made = (run_dir / "config.toml").is_file()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bigchem-watchdog", daemon=True)

    def beat(self, phase: str, step: int | None = None) -> None:
        """The rank goes on, and enters a phase; each step's first is `data`. step: optimizer steps done; None: as
        before."""
        before, _, beats, _ = self._now
        self._steps_begun += phase == "data"
        self._now = (before if step is None else step, phase, beats + 1, self.clock())  # one assignment: atomic
        if self._device is not None:
            self._device.beat(phase, beats + 1)

    def __enter__(self) -> Watchdog:
        # The file by which the first rank to stand still calls the others' records. It has another name in every
        # attempt: a network file system may show for a while what has been removed.
        self._called = self._folder / f"called_{on_rank0(self._clear)}"
        for folder in (self._folder, self._run_dir / "logs"):
            try_write(f"{folder.name}/", lambda folder=folder: folder.mkdir(parents=True, exist_ok=True))  # type: ignore[misc]
        self.beat("prepare")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()  # where a hang has been found, this ends the process: a peer's end has woken us up

    def _clear(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        return secrets.token_hex(4)

    def _run(self) -> None:
        missing, looked = 0, self.clock()
        while not self._stop.wait(self._tick_s):
            self.clock.tick()
            self._on_look(self._now[0], self.clock())
            called = False
            if self.clock() - looked >= self._pause_s:
                looked, called = self.clock(), self._called.exists()
                missing = 0 if not self._made or (self._run_dir / "config.toml").is_file() else missing + 1
            if missing > 1:  # a network file system may err once
                _removed(self._run_dir)
            if called or self._stands_still():
                try:
                    self._hang()
                finally:  # also where the disk is what hangs, or is full
                    exit_now(EXIT_REQUEUE)

    def _stands_still(self) -> bool:
        _, phase, _, since = self._now
        patience = max(PATIENT.get(phase, 1), PATIENT["prepare"] if self._steps_begun <= 1 else 1)
        return bool(self._hang_s) and self.clock() - since > patience * self._hang_s

    def _hang(self) -> None:
        if (others := peers.current()) is not None:
            others.quiet()  # a peer that leaves for the same hang is not what ends this rank
        record = self._record()
        file = self._folder / f"rank{self._rank}.json"
        with suppress(OSError):
            self._dump_stacks()
        with suppress(OSError):
            atomic.write_atomically(file, json.dumps(asdict(record), indent=1))
        with suppress(OSError):
            self._called.touch()
        call_with_timeout(DUMP_S, lambda: flight_recorder.dump(self._folder, self._rank))
        time.sleep(3 * self._pause_s)
        records = read_heartbeats(self._folder, self._world_size) or [record]
        line = verdict(records, self._world_size)
        alone = not has_ended(read_state(self._run_dir))
        if alone and self._rank == min(r.rank for r in records):
            events.report(self._run_dir, record.step + 1, "hang", "the run ends, to be started again", line)
            self._on_terminal(line)
            with suppress(OSError):
                self._claim.end(Writer.ANY_RANK, End.HUNG, f"hang at step {record.step + 1}: {line}")
            notify.send_from_rank(self._run_dir)
            exit_now(self._requeue(True))
        print(f"hang: {line}", file=sys.stderr, flush=True)
        time.sleep(self._pause_s)  # the lowest rank is the one to tell state.json and the launcher
        state = read_state(self._run_dir)
        if not alone:  # they stand still for a rank that has failed, and said why
            print(f"the run has {state['state']}: {state.get('reason', 'by a person')}", file=sys.stderr, flush=True)
        exit_now(exit_code_after(state, self._requeue))

    def _dump_stacks(self) -> None:
        with closing(Log(self._run_dir / "logs" / f"rank{self._rank}.log")) as log:
            log.write("stacks of all threads:\n")
            faulthandler.dump_traceback(file=log, all_threads=True)

    def _on_terminal(self, line: str) -> None:
        """Rank 0's output goes to the terminal as well; where it is another rank that speaks, so must this line."""
        if self._rank > 0 and sys.__stderr__ is not None:
            print(f"hang: {line}", file=sys.__stderr__, flush=True)

    def _record(self) -> Heartbeat:
        step, phase, beats, since = self._now
        still_s = self.clock() - since
        host, where = platform.node(), innermost_call(sys._current_frames().get(self._main))
        device = None if self._device is None else call_with_timeout(DUMP_S, self._device.reached) or SILENT
        return Heartbeat(self._rank, step, phase, beats, still_s, host, os.getpid(), where, device)


def collective_timeout(hang_s: float) -> timedelta:
    """How long a collective operation may wait: longer than any watchdog, which says more of a hang than a timeout
    does, and longer than a job is suspended. A day where hang_s = 0."""
    longest = timedelta(seconds=max(PATIENT.values()) * hang_s + MARGIN_S)
    return max(LONGEST, longest) if hang_s else timedelta(days=1)


def innermost_call(frame: FrameType | None) -> str:
    """file:line of the innermost call inside bigchem on a stack, or else of the innermost call."""
    package = str(Path(bigchem.__file__).parent)
    inner = frame
    while inner is not None and not inner.f_code.co_filename.startswith(package):
        inner = inner.f_back
    at = inner or frame
    return "nowhere" if at is None else f"{Path(at.f_code.co_filename).name}:{at.f_lineno}"


def read_heartbeats(folder: Path, world_size: int) -> list[Heartbeat]:
    """The records that ranks have written."""
    paths = [folder / f"rank{rank}.json" for rank in range(world_size)]
    found = []
    for path in paths:
        with suppress(OSError, RecordError):  # a rank that could not write its record is one without
            found.append(json_file.as_kind(Heartbeat, json_file.load(path), str(path)))
    return found


def verdict(records: Sequence[Heartbeat], world_size: int) -> str:
    """One line: who is to blame, where it stands, and where the others wait."""
    missing = sorted(set(range(world_size)) - {r.rank for r in records})
    least = min(r.reached for r in records)
    behind = [] if missing or all(r.reached == least for r in records) else [r for r in records if r.reached == least]
    waiting = [r for r in records if r not in behind]
    parts = []
    if missing:
        parts.append(f"{ranks_named(missing)} left no record: dead, or frozen with all threads")
    for r in behind[:NAMED]:
        gpu = "" if r.device is None else f", its GPU in {r.device[0]}"
        stands = f"stands in {r.phase} since {r.still_s:.0f} s at {r.where}"
        parts.append(f"rank {r.rank} ({r.host}, pid {r.pid}) {stands}{gpu}")
    if len(behind) > NAMED:
        parts.append(f"{len(behind) - NAMED} more stand as far back")
    for phase in sorted({r.phase for r in waiting}):
        waits = [r for r in waiting if r.phase == phase]
        at = f" at {waits[0].where}" if not behind and not missing else ""
        parts.append(f"{ranks_named([r.rank for r in waits])} waits in {phase}{at}")
    if not behind and not missing and world_size > 1:
        parts.append("none is behind: look at the network and the file system")
    return f"no progress for {max(r.still_s for r in records):.0f} s: {', '.join(parts)}; stacks in logs/"


def _removed(run_dir: Path) -> NoReturn:
    told = f"the run folder was removed: {run_dir}"
    print(f"error: {told}", file=sys.__stderr__, flush=True)  # its logs are gone too
    peers.exit_with_peers(told, 2)


def ranks_named(ranks: Sequence[int]) -> str:
    """`rank 3`, or `each of 9 ranks (0 1 2 3 ...)`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"each of {len(ranks)} ranks ({' '.join(map(str, ranks[:NAMED]))}{' ...' if len(ranks) > NAMED else ''})"
