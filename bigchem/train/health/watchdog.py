"""A thread of each rank that ends a hanging run and names the rank to blame.

The loop sends a heartbeat with each phase it enters. After `health.hang_s` of the process's own time without one, the
rank writes the stacks of all threads to its log, and its record and torch's flight recorder to health/. The first
record prompts the other ranks to write theirs; after a pause every rank reads all of them. Collective operations make
all ranks wait for the slowest, so the rank with the fewest heartbeats is the one the others wait for. A rank without a
record is dead, or frozen with all its threads. On a GPU the heartbeats that the device has reached count: the host runs
ahead and waits for it, as its peers' hosts do.

The thread also ends a run whose folder was removed.
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

PATIENCE = {"prepare": 4, "save": 4, "validate": 4, "profile": 4, "download": 8, "resume": 8}
"""Multiples of hang_s by phase, for large files and compilation. `prepare` lasts until the first step ends; `resume`
may fetch a checkpoint and then hash it."""
LONGEST = timedelta(days=7)
"""Timeout of a collective operation: it keeps running while a job is suspended in the middle of one."""
MARGIN_S = 300.0
"""By how much a collective's timeout exceeds the time in which watchdogs detect and report a hang."""
CHECK_S = 5.0
"""Longest interval between checks of the run folder: of 500 ranks, a hundred check it every second."""
DUMP_S = 10.0
"""Timeout of the flight recorder and the device: the driver may be what hangs."""
SILENT = ("an unknown phase: it does not answer", 0)
"""Progress of a GPU that does not answer: behind any that does."""
Requeue = Callable[[bool], int]
NAMED = 4
"""Limit on ranks named in a line."""


@dataclass(frozen=True)
class Heartbeat:
    """Position of a rank. beats: number of heartbeats. still_s: seconds since the last one. where: the main thread's
    innermost call. device: the GPU's phase and heartbeats; None on a CPU."""

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
        """The heartbeats by which ranks are compared."""
        return self.beats if self.device is None else self.device[1]


class Watchdog:
    """While entered, watches this rank. Entering is collective. hang_s = 0: watches the run folder only.

    requeue: returns the exit code for a restart; one rank calls it with True, and it then asks the launcher for the
    restart first. device: of this rank. claim: on the run; None if no launcher made one. on_tick: called about once a
    second with the steps done and this process's own time. clock: that time in seconds.
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
        on_tick: Callable[[int, float], object] = lambda step, now: None,
    ) -> None:
        self._run_dir, self._rank, self._world_size, self._hang_s = run_dir, rank, world_size, hang_s
        self._requeue, self._device, self._claim = requeue, device, claim or Claim(run_dir)
        self._on_tick = on_tick
        self._folder = run_dir / "health"
        self._main = threading.main_thread().ident or 0
        self._pause_s = min(CHECK_S, hang_s / 5) if hang_s else CHECK_S
        self._tick_s = min(1.0, self._pause_s)
        self.clock = ProcessClock(self._tick_s)
        self._now = (0, "prepare", 0, self.clock())
        self._steps_begun = 0
        self._called = self._folder / "called"
        self._made = (run_dir / "config.toml").is_file()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bigchem-watchdog", daemon=True)

    def beat(self, phase: str, step: int | None = None) -> None:
        """Heartbeat: the rank enters a phase. Each step starts with `data`. step: optimizer steps done; None:
        unchanged."""
        before, _, beats, _ = self._now
        self._steps_begun += phase == "data"
        self._now = (before if step is None else step, phase, beats + 1, self.clock())  # a single assignment, so atomic
        if self._device is not None:
            self._device.beat(phase, beats + 1)

    def __enter__(self) -> Watchdog:
        # The first rank to hang creates this file to ask for the others' records. Its name differs by attempt, as a
        # network file system may still show a removed file.
        self._called = self._folder / f"called_{on_rank0(self._clear)}"
        for folder in (self._folder, self._run_dir / "logs"):
            try_write(f"{folder.name}/", lambda folder=folder: folder.mkdir(parents=True, exist_ok=True))  # type: ignore[misc]
        self.beat("prepare")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()  # if it found a hang, it ends the process here, after a peer's exit woke this thread

    def _clear(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        return secrets.token_hex(4)

    def _run(self) -> None:
        missing, checked = 0, self.clock()
        while not self._stop.wait(self._tick_s):
            self.clock.tick()
            self._on_tick(self._now[0], self.clock())
            called = False
            if self.clock() - checked >= self._pause_s:
                checked, called = self.clock(), self._called.exists()
                missing = 0 if not self._made or (self._run_dir / "config.toml").is_file() else missing + 1
            if missing > 1:  # a network file system may be wrong once
                _removed(self._run_dir)
            if called or self._is_stuck():
                try:
                    self._hang()
                finally:  # even if the disk is full or hangs
                    exit_now(EXIT_REQUEUE)

    def _is_stuck(self) -> bool:
        _, phase, _, since = self._now
        patience = max(PATIENCE.get(phase, 1), PATIENCE["prepare"] if self._steps_begun <= 1 else 1)
        return bool(self._hang_s) and self.clock() - since > patience * self._hang_s

    def _hang(self) -> None:
        if (others := peers.current()) is not None:
            others.quiet()  # or a peer's exit for the same hang would end this rank
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
        unexplained = not has_ended(read_state(self._run_dir))
        if unexplained and self._rank == min(r.rank for r in records):
            events.report(self._run_dir, record.step + 1, "hang", "the run exits, to be restarted", line)
            self._print_on_terminal(line)
            with suppress(OSError):
                self._claim.end(Writer.ANY_RANK, End.HUNG, f"hang at step {record.step + 1}: {line}")
            notify.send_from_rank(self._run_dir)
            exit_now(self._requeue(True))
        print(f"hang: {line}", file=sys.stderr, flush=True)
        time.sleep(self._pause_s)  # the lowest rank writes state.json and asks for the restart
        state = read_state(self._run_dir)
        if not unexplained:  # the ranks hang because one failed, and it recorded why
            print(f"the run has {state['state']}: {state.get('reason', 'by the user')}", file=sys.stderr, flush=True)
        exit_now(exit_code_after(state, self._requeue))

    def _dump_stacks(self) -> None:
        with closing(Log(self._run_dir / "logs" / f"rank{self._rank}.log")) as log:
            log.write("stacks of all threads:\n")
            faulthandler.dump_traceback(file=log, all_threads=True)

    def _print_on_terminal(self, line: str) -> None:
        """Only rank 0's output reaches the terminal, so another rank prints this line there itself."""
        if self._rank > 0 and sys.__stderr__ is not None:
            print(f"hang: {line}", file=sys.__stderr__, flush=True)

    def _record(self) -> Heartbeat:
        step, phase, beats, since = self._now
        still_s = self.clock() - since
        host, where = platform.node(), innermost_call(sys._current_frames().get(self._main))
        device = None if self._device is None else call_with_timeout(DUMP_S, self._device.reached) or SILENT
        return Heartbeat(self._rank, step, phase, beats, still_s, host, os.getpid(), where, device)


def collective_timeout(hang_s: float) -> timedelta:
    """Timeout of collective operations: longer than any watchdog, which reports more than a timeout would, and longer
    than a job is suspended. A day if hang_s = 0."""
    longest = timedelta(seconds=max(PATIENCE.values()) * hang_s + MARGIN_S)
    return max(LONGEST, longest) if hang_s else timedelta(days=1)


def innermost_call(frame: FrameType | None) -> str:
    """file:line of a stack's innermost call inside bigchem, or else of its innermost call."""
    package = str(Path(bigchem.__file__).parent)
    inner = frame
    while inner is not None and not inner.f_code.co_filename.startswith(package):
        inner = inner.f_back
    at = inner or frame
    return "nowhere" if at is None else f"{Path(at.f_code.co_filename).name}:{at.f_lineno}"


def read_heartbeats(folder: Path, world_size: int) -> list[Heartbeat]:
    """The records written by the ranks."""
    paths = [folder / f"rank{rank}.json" for rank in range(world_size)]
    found = []
    for path in paths:
        with suppress(OSError, RecordError):  # counts as a rank without a record
            found.append(json_file.as_kind(Heartbeat, json_file.load(path), str(path)))
    return found


def verdict(records: Sequence[Heartbeat], world_size: int) -> str:
    """One line: which rank is to blame, where it is stuck, and where the others wait."""
    missing = sorted(set(range(world_size)) - {r.rank for r in records})
    least = min(r.reached for r in records)
    behind = [] if missing or all(r.reached == least for r in records) else [r for r in records if r.reached == least]
    waiting = [r for r in records if r not in behind]
    parts = []
    if missing:
        parts.append(f"{ranks_named(missing)} left no record: dead, or frozen with all threads")
    for r in behind[:NAMED]:
        gpu = "" if r.device is None else f", its GPU in {r.device[0]}"
        stuck = f"stuck in {r.phase} for {r.still_s:.0f} s at {r.where}"
        parts.append(f"rank {r.rank} ({r.host}, pid {r.pid}) {stuck}{gpu}")
    if len(behind) > NAMED:
        parts.append(f"{len(behind) - NAMED} more are as far behind")
    for phase in sorted({r.phase for r in waiting}):
        there = [r for r in waiting if r.phase == phase]
        at = f" at {there[0].where}" if not behind and not missing else ""
        parts.append(f"{ranks_named([r.rank for r in there])} waiting in {phase}{at}")
    if not behind and not missing and world_size > 1:
        parts.append("none is behind: check the network and the file system")
    return f"no progress for {max(r.still_s for r in records):.0f} s: {', '.join(parts)}; stacks in logs/"


def _removed(run_dir: Path) -> NoReturn:
    reason = f"the run folder was removed: {run_dir}"
    print(f"error: {reason}", file=sys.__stderr__, flush=True)  # the logs are gone too
    peers.exit_with_peers(reason, 2)


def ranks_named(ranks: Sequence[int]) -> str:
    """`rank 3`, or `each of 9 ranks (0 1 2 3 ...)`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"each of {len(ranks)} ranks ({' '.join(map(str, ranks[:NAMED]))}{' ...' if len(ranks) > NAMED else ''})"
