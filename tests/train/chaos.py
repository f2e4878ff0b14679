"""A launcher that SIGKILLs ranks of `bigchem train` at random moments and restarts them, perhaps on another number of
ranks and at another ZeRO stage, until the run is finished. Every other attempt saves asynchronously."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import forkserver, free_port

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.train.checkpoint.store import Manifest, published

GRACE_S = 2.0
"""Time for the surviving ranks to exit by themselves before they are killed, as any launcher does."""
DEADLINE_S = 120.0

MOMENTS = ("training", "training", "saving", "resuming")
"""In a few steps; while a checkpoint is written or published; while ranks start and load one. Each in turn."""

Keys = dict[int, Counter[str]]


@dataclass
class Tally:
    """What happened to a run. killed: kills by moment."""

    killed: Counter[str] = field(default_factory=Counter)
    worlds: list[int] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    converted: int = 0
    max_bytes: int = 0

    @property
    def kills(self) -> int:
        return self.killed.total()


def train_in_chaos(config: RunConfig, kills: int, seed: int, worlds: tuple[int, ...], stages: tuple[int, ...]) -> Tally:
    """Starts the run, kills one rank and starts again, `kills` times; then lets it finish."""
    chance = random.Random(seed)
    tally, moments = Tally(), list[str]()
    while tally.kills < kills:
        world_size = chance.choice(worlds) if tally.worlds else 2
        stage = chance.choice(stages) if tally.stages else 2
        moments = moments or chance.sample(MOMENTS, len(MOMENTS))
        moment = moments.pop()
        ranks = start(_drawn(config, stage, async_save=tally.kills % 2 == 0), world_size)
        victim = chance.randrange(world_size)
        if _wait_for(moment, config, ranks, chance, tally):
            os.kill(ranks[victim].pid or 0, signal.SIGKILL)
            tally.killed[moment] += 1
        elif not any(rank.is_alive() for rank in ranks):
            raise AssertionError(f"the run ended after {tally.kills} of {kills} kills: {codes(ranks)}\n{_log(config)}")
        end(ranks)
        tally.worlds.append(world_size)
        tally.stages.append(stage)
        check_published(config)
    ranks = start(_drawn(config, 2, async_save=True), 2)
    _watch(config, ranks, tally)
    end_well(config, ranks)
    log = (config.run_dir / "logs" / "rank0.log").read_text()
    tally.converted = log.count("converted in")
    resumes = [line for line in log.splitlines() if line.startswith("training from step ")]
    tally.resumed = [int(line.split()[3].rstrip(",")) for line in resumes]
    return tally


def start(config: RunConfig, world_size: int) -> list[Any]:
    """Starts the ranks of `bigchem train` as torchrun would."""
    server = forkserver()
    port = free_port()
    environment = dict(os.environ)  # the server keeps that of the test which started it
    ranks = [
        server.Process(target=_rank, args=(config, rank, world_size, port, environment)) for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def _rank(config: RunConfig, rank: int, world_size: int, port: int, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    five = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in five.items()})
    folder = Path(config.runs) / "output"
    folder.mkdir(parents=True, exist_ok=True)
    for descriptor in (1, 2):
        os.dup2(os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    from bigchem.launch.job import run_here

    try:
        run_here(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def end(ranks: list[Any]) -> None:
    """Waits briefly for the remaining ranks, then kills them."""
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and any(rank.is_alive() for rank in ranks):
        time.sleep(0.02)
    for rank in ranks:
        rank.kill()
        rank.join()


def codes(ranks: list[Any]) -> list[int]:
    """Exit codes."""
    for rank in ranks:
        rank.join(timeout=DEADLINE_S)
    return [rank.exitcode for rank in ranks]


def end_well(config: RunConfig, ranks: list[Any]) -> None:
    """Waits for the ranks. AssertionError, with what they printed, unless each exits with 0."""
    found = codes(ranks)
    if any(found):
        raise AssertionError(f"exit codes {found}\n{_log(config)}")


def ledger(run_dir: Path) -> Keys:
    """Keys of the examples that the ranks fed to the engine, with counts, by step."""
    steps: Keys = defaultdict(Counter)
    for file in (run_dir / "ledger").glob("rank*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            steps[row["step"]].update(row["keys"])
    return dict(steps)


def check_published(config: RunConfig) -> None:
    """Every published checkpoint matches its manifest."""
    for checkpoint in published(config.run_dir / "checkpoints"):
        assert Manifest.read(checkpoint).damage(checkpoint) is None


def _drawn(config: RunConfig, stage: int, *, async_save: bool) -> RunConfig:
    train = config.train.model_copy(update={"ds_config": f"zero{stage}"})
    checkpoint = config.checkpoint.model_copy(update={"async_save": async_save})
    return config.model_copy(update={"train": train, "checkpoint": checkpoint})


def _wait_for(moment: str, config: RunConfig, ranks: list[Any], chance: random.Random, tally: Tally) -> bool:
    """Waits for the moment. False if a rank exited first."""
    checkpoints, log = config.run_dir / "checkpoints", config.run_dir / "logs" / "rank0.log"
    size = log.stat().st_size if log.is_file() else 0
    begun = time.monotonic()
    metrics, steps = config.run_dir / "metrics.jsonl", chance.randrange(3, 7)
    rows = _lines(metrics)
    while all(rank.is_alive() for rank in ranks):
        tally.max_bytes = max(tally.max_bytes, used(checkpoints))
        seconds = time.monotonic() - begun
        if moment == "training" and _lines(metrics) >= rows + steps:
            time.sleep(chance.uniform(0, 0.2))
            return True
        if moment == "saving" and any(checkpoints.glob("*.partial")):
            time.sleep(chance.uniform(0, 0.05))
            return True
        if moment == "resuming" and log.is_file() and log.stat().st_size > size:  # its first line: the model is built
            time.sleep(chance.uniform(0, 0.5))
            return True
        if seconds > DEADLINE_S:
            raise AssertionError(f"nothing happened for {DEADLINE_S} s\n{_log(config)}")
        time.sleep(0.002)
    return False


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _watch(config: RunConfig, ranks: list[Any], tally: Tally) -> None:
    until = time.monotonic() + DEADLINE_S
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < until:
        tally.max_bytes = max(tally.max_bytes, used(config.run_dir / "checkpoints"))
        time.sleep(0.01)


def used(folder: Path) -> int:
    """Bytes of all files in a folder that other processes change."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(base, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _log(config: RunConfig) -> str:
    files = sorted((Path(config.runs) / "output").glob("*.txt"))
    return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)
