"""Runs a function on several gloo ranks, each a process of its own, as a launcher would start them, and commands.

They are forked from a server that has imported the heavy packages once: seconds saved at every launch.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PRELOADED = [
    *("torch", "deepspeed", "transformers", "bigchem.train.loop", "bigchem.launch.job"),
    # What a rank imports on its way to the first step: 1.4 of its 2.8 s.
    *("torch._dynamo", "torch.utils.tensorboard", "pandas", "fsspec.core", "deepspeed.runtime.zero.stage3"),
]


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 240, fresh: bool = False
) -> list[Any]:
    """function(*args) on every rank, with the process group up; the results in rank order.

    The function must be importable. A rank that raises fails the call with its traceback. fresh: new interpreters, for
    what reads the environment when it is imported.
    """
    server = multiprocessing.get_context("spawn") if fresh else forkserver()
    results = server.Queue()
    port = free_port()
    processes = [
        server.Process(target=_rank, args=(rank, world_size, port, results, dict(os.environ), function, args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        found = _take(results, processes, timeout)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return [found[rank] for rank in range(world_size)]


def forkserver() -> Any:
    """The context whose processes are forked from the server."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def bigchem(
    *words: str, cwd: Path, timeout: float = 240, stdin: Path = Path(os.devnull)
) -> subprocess.CompletedProcess[str]:
    """A command line of bigchem in a process of its own, with its exit code and output."""
    with tempfile.TemporaryDirectory() as folder:
        files = [stdin, *(Path(folder, name) for name in ("stdout", "stderr"))]
        process = forkserver().Process(target=_command, args=(words, cwd, files, dict(os.environ)))
        process.start()
        process.join(timeout)
        process.kill()
        process.join()
        return subprocess.CompletedProcess(words, process.exitcode, *(file.read_text() for file in files[1:]))


def _command(words: tuple[str, ...], cwd: Path, files: Sequence[Path], environment: dict[str, str]) -> None:
    for descriptor, file in enumerate(files):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT if descriptor else os.O_RDONLY), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  multiprocessing has put the null device there
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["bigchem", *words]
    from bigchem.cli.main import main

    main()


def _take(results: Any, processes: Sequence[Any], timeout: float) -> dict[int, Any]:
    """Each rank's result. AssertionError, in words, for a rank that failed, died, or is not done in time."""
    found: dict[int, Any] = {}
    until = time.monotonic() + timeout
    while len(found) < len(processes):
        try:
            rank, value, error = results.get(timeout=1)
        except queue.Empty:
            missing = [rank for rank in range(len(processes)) if rank not in found]
            dead = {rank: processes[rank].exitcode for rank in missing if processes[rank].exitcode is not None}
            if dead and results.empty():
                raise AssertionError(f"ranks died without a result: {dead} (rank: exit code)") from None
            if time.monotonic() > until:
                load = os.getloadavg()[0]
                raise AssertionError(f"ranks {missing} not done after {timeout:.0f} s (load {load:.1f})") from None
            continue
        if error is not None:
            raise AssertionError(f"rank {rank} failed:\n{error}")
        found[rank] = value
    return found


def _rank(
    rank: int,
    world_size: int,
    port: int,
    results: Any,
    environment: dict[str, str],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    log = Path(os.environ.get("BIGCHEM_TEST_LOG", os.devnull)).open("a")  # noqa: SIM115 - for the process's whole life
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    from bigchem.launch.rendezvous.environment import Rendezvous
    from bigchem.launch.rendezvous.process_group import finish, start

    try:
        start(Rendezvous(rank, world_size, rank, "127.0.0.1", port, "test"), key="the tests' own secret")
        results.put((rank, function(*args), None))
        finish()
    except BaseException:
        results.put((rank, None, traceback.format_exc()))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
