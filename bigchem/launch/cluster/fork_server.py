"""Jobs of submitit's local executor that are forked from a server, which has imported torch, DeepSpeed and bigchem.

A sweep on this machine starts many short runs, and every process of each would import them again. On the CPU only: a
process that has touched a GPU cannot be forked.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from bigchem.base.environment import ACCELERATOR
from bigchem.base.errors import UserError

IMPORTED = (
    *("torch", "deepspeed", "transformers.models.t5.modeling_t5", "torch.utils.tensorboard", "submitit"),
    *("bigchem.launch.job", "bigchem.train.loop", "bigchem.export", "bigchem.evaluate.run"),
)
"""What a run imports on its way from the start to its results."""
PICKLE_S = 60.0
"""How long a job waits for submitit to put its pickle in place, as submitit itself does."""


@dataclass
class ForkServers:
    """The servers of a sweep: one for each snapshot of the code and environment of a profile, started when its first
    job is. As a context, it ends them with the sweep. Jobs outlive them, as they do without."""

    _servers: dict[object, tuple[subprocess.Popen[bytes], Connection]] = field(default_factory=dict)

    def __enter__(self) -> ForkServers:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process, connection in self._servers.values():
            connection.close()
            if kind is None:  # else it may have jobs, and ends after them
                process.wait()

    def executor(self, folder: Path, max_num_timeout: int, python: str, code: str, env: Mapping[str, str]) -> Any:
        """A submitit executor. python: the shell words that start Python with the snapshot. code: the snapshot's name.
        env: the profile's."""
        import submitit
        from submitit.local.local import LocalJob

        servers, server = self, (code, tuple(env.items()))

        class LocalExecutor(submitit.LocalExecutor):  # submitit derives the executor's name from the class's
            def _submit_command(self, command: str) -> Any:
                ranks = self.parameters["tasks_per_node"]
                environment = {**os.environ, **_for_controller(self.parameters)}
                pid = servers._fork(server, shlex.split(python), dict(env), str(self.folder), environment)
                return LocalJob(folder=self.folder, job_id=str(pid), tasks=list(range(ranks)))

        return LocalExecutor(folder=folder, max_num_timeout=max_num_timeout, python=python)

    def _fork(
        self, server: object, python: list[str], env: dict[str, str], folder: str, environment: dict[str, str]
    ) -> int:
        """The pid of a new job's controller."""
        if server not in self._servers:
            self._servers[server] = _start(python, {**environment, **env})
        connection = self._servers[server][1]
        try:
            connection.send((folder, environment))
            return int(connection.recv())
        except (EOFError, OSError):
            raise UserError(
                "the process that starts runs has ended", "local executor", "see its output above"
            ) from None


def _for_controller(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The variables that submitit's `start_controller` sets, for a job without GPUs."""
    return {
        "SUBMITIT_LOCAL_NTASKS": str(parameters["tasks_per_node"]),
        "SUBMITIT_LOCAL_COMMAND": "",
        "SUBMITIT_LOCAL_TIMEOUT_S": str(int(60 * parameters["timeout_min"])),
        "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(int(parameters["signal_delay_s"])),
        "SUBMITIT_LOCAL_NODEID": "0",
        "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
        "SUBMITIT_STDERR_TO_STDOUT": "",
        "SUBMITIT_EXECUTOR": "local",
        "CUDA_VISIBLE_DEVICES": "",
        "SUBMITIT_LOCAL_WITH_SHELL": "",
    }


def _start(python: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    """A server, and this end of the pipe on which it takes requests."""
    ours, its = multiprocessing.Pipe()
    command = [*python, "-u", "-m", "bigchem.launch.cluster.fork_server", str(its.fileno())]
    environment[ACCELERATOR] = "cpu"  # read when DeepSpeed is imported
    process = subprocess.Popen(command, env=environment, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
    its.close()
    return process, ours


def _serve(connection: Connection) -> None:
    """Forks a controller per request, until the sweep has gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    for name in IMPORTED:
        importlib.import_module(name)
    fork = multiprocessing.get_context("fork")
    while True:
        try:
            folder, environment = connection.recv()
        except EOFError:
            return
        controller = fork.Process(target=_control, args=(connection, folder, environment))
        controller.start()
        connection.send(controller.pid)


def _control(connection: Connection, folder: str, environment: dict[str, str]) -> None:
    """What submitit's `_local` runs, with ranks that are forked."""
    from submitit.core.utils import JobPaths
    from submitit.local.local import Controller

    connection.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)

    class ForkingController(Controller):  # type: ignore[misc]
        def start_tasks(self) -> None:
            self.folder.mkdir(exist_ok=True)
            paths = [JobPaths(self.folder, self.pid, rank) for rank in range(self.ntasks)]
            self.stdouts = [path.stdout.open("a") for path in paths]
            self.stderrs = [path.stderr.open("a") for path in paths]
            for rank, streams in enumerate(zip(self.stdouts, self.stderrs, strict=True)):
                self.tasks.append(_Rank(self.pid, rank, folder, streams))

    pickle, until = JobPaths(folder, str(os.getpid())).submitted_pickle, time.monotonic() + PICKLE_S
    while not pickle.exists() and time.monotonic() < until:  # the rank itself would sleep for a second
        time.sleep(0.01)
    ForkingController(Path(folder)).run()


class _Rank:
    """A rank's process, with the methods of Popen that submitit's controller calls."""

    def __init__(self, job: str, rank: int, folder: str, streams: tuple[TextIO, TextIO]) -> None:
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_run, args=(job, rank, folder, streams))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)


def _run(job: str, rank: int, folder: str, streams: tuple[TextIO, TextIO]) -> None:
    """What submitit's `_submit` runs, in a rank's process."""
    from submitit.core.submission import process_job

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the controller passes it on
    for descriptor, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream.fileno(), descriptor)
    for name, value in (("LOCALID", str(rank)), ("GLOBALID", str(rank)), ("JOB_ID", job)):
        os.environ[f"SUBMITIT_LOCAL_{name}"] = value
    process_job(folder)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
