"""Starts and stops a testbed, and kills its nodes."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.launch.slurm.testbed import conf, node, sacct

SOCKET = "/spool-node99/node99_10000000.4294967291"
"""The longest path of a Unix socket below a testbed's folder; the whole path may have 107 bytes."""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sinfo", "squeue", "sbatch", "srun", "scontrol", "scancel", "unshare")
LISTENERS = ("srun", "salloc")
"""The clients that listen as long as their job runs."""
START_S, STOP_S, CALL_S = 30.0, 10.0, 5.0
ADMIN = os.pathsep.join(["/usr/sbin", "/sbin"])
"""Where distributions put the daemons; rarely on users' PATH."""


def missing() -> str | None:
    """Why no testbed can run here, in one line; None if it can."""
    lacking = [name for name in PROGRAMS if _which(name) is None]
    if lacking:
        return f"{' '.join(lacking)}: not installed (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    probe = [*_unshared(*node.OWN_PROCESSES), "true"]
    tried = subprocess.run(probe, capture_output=True, text=True, timeout=CALL_S, check=False)
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


def _unshared(*more: str) -> list[str]:
    return node.unshared(*more, as_root=os.geteuid() == 0)


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), ADMIN]))


@dataclass(frozen=True)
class Bed:
    """A testbed's folder: its configuration, state, logs and the pids of its daemons."""

    folder: Path
    nodes: tuple[str, ...]
    port: int

    @classmethod
    def at(cls, folder: Path) -> Bed:
        """The testbed in a folder."""
        try:
            table = json.loads((folder / "testbed.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError("no testbed here", str(folder), "bigchem testbed start") from None
        return cls(folder, tuple(table["nodes"]), table["port"])

    def environment(self) -> dict[str, str]:
        """Variables by which Slurm's programs, and so submitit, use this testbed."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def call(self, *command: str, timeout_s: float = CALL_S) -> str:
        """Output of a Slurm program such as `squeue`. UserError with its own message if it fails or hangs."""
        env = {**os.environ, **self.environment()}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"no answer in {timeout_s:.0f} s", " ".join(command), self._logs()) from None
        if done.returncode:
            raise UserError(done.stderr.strip() or "failed", " ".join(command), self._logs())
        return done.stdout

    def start(self, *, tied: bool = False) -> None:
        """Starts it without old state, and waits until all nodes are idle. tied: it ends with the calling process."""
        if self._running("slurmctld"):
            raise UserError("the testbed is already running", str(self.folder), "bigchem testbed stop")
        if len(str(self.folder) + SOCKET) > 107:
            raise UserError(
                f"the path is longer than {107 - len(SOCKET)} characters", str(self.folder), "--folder /tmp/bed"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in ("state", *(f"spool-{n}" for n in self.nodes)):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self._configure()
        self._start_munge(tied=tied)
        controller = [*self._named("localhost", "--mount"), str(_which("slurmctld"))]
        self._launch("slurmctld", [*controller, "-D", "-i", "-f", str(self.folder / "slurm.conf")], tied=tied)
        for name in self.nodes:
            self.start_node(name, tied=tied)
        self._await("slurmctld", self._all_idle)

    def _await(self, daemon: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            if time.monotonic() > deadline or not self._running(daemon):
                self.stop()
                raise UserError("the testbed did not come up", str(self.folder), self._logs())
            time.sleep(0.02)

    def _start_munge(self, *, tied: bool) -> None:
        """Starts a munged with its own key. --force: it insists on a socket open to all users otherwise."""
        socket = conf.munge_socket(self.folder)
        files = {"key-file": "key", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        shutil.rmtree(socket.parent, ignore_errors=True)
        socket.parent.mkdir(mode=0o700)
        (socket.parent / "key").touch(mode=0o600)
        (socket.parent / "key").write_bytes(secrets.token_bytes(128))
        options = [f"--{option}={socket.parent / name}" for option, name in files.items()]
        daemon = [str(_which("munged")), "--foreground", "--force", f"--socket={socket}", *options]
        self._launch("munged", daemon, tied=tied)
        self._await("munged", socket.is_socket)

    def _named(self, name: str, *namespaces: str) -> list[str]:
        """The command prefix that gives a program its own hostname."""
        hosts = str(self.folder / "hosts") if namespaces else ""
        return [*_unshared(*namespaces), sys.executable, "-S", str(node.__file__), name, hosts]

    def _configure(self) -> None:
        for name in ("log", "run", "dev", "bin"):
            (self.folder / name).mkdir(exist_ok=True)
        for number in range(conf.GPUS):
            device = self.folder / "dev" / f"nvidia{number}"
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")
        user = pwd.getpwuid(os.geteuid()).pw_name
        texts = {
            "slurm.conf": conf.slurm_conf(self.folder, self.nodes, self.port, user),
            "gres.conf": conf.gres_conf(self.folder, self.nodes),
            "hosts": conf.hosts(self.nodes),
            "testbed.json": json.dumps({"nodes": self.nodes, "port": self.port}),
            "bin/sacct": f"#!{sys.executable} -S\n{Path(sacct.__file__).read_text(encoding='utf-8')}",
            **{f"bin/{name}": self._wrapper(name) for name in LISTENERS if _which(name)},
        }
        for name, text in texts.items():
            atomic.write_atomically(self.folder / name, text)
        for program in (self.folder / "bin").iterdir():
            program.chmod(0o755)

    def _wrapper(self, program: str) -> str:
        """A script that makes a client listen on 127.0.0.1 only. On a node it does so anyway."""
        real = shlex.quote(str(_which(program)))
        named = shlex.join(self._named("localhost"))
        return f'#!/bin/sh\n[ -n "$SLURMD_NODENAME" ] && exec {real} "$@"\nexec {named} {real} "$@"\n'

    def _all_idle(self) -> bool:
        with suppress(UserError):
            return (
                self.call("sinfo", "-h", "-p", "test", "-o", "%T %D", timeout_s=1).strip() == f"idle {len(self.nodes)}"
            )
        return False

    def stop(self) -> None:
        """Kills everything at once, including jobs. Its logs stay."""
        for name in (*self.nodes, "slurmctld", "munged"):
            self._kill(name)

    def kill_node(self, name: str) -> None:
        """Sends SIGKILL to a node and everything on it, as if its power failed."""
        self._check(name)
        self._kill(name)

    def start_node(self, name: str, *, tied: bool = False) -> None:
        """Starts a node (again)."""
        self._check(name)
        if self._running(name):
            raise UserError(f"{name} is already running", str(self.folder))
        daemon = [str(_which("slurmd")), "-D", "-N", name, "-f", str(self.folder / "slurm.conf")]
        self._launch(name, [*self._named(name, "--mount", *node.OWN_PROCESSES), *daemon], tied=tied)

    def status(self) -> str:
        """Its nodes and jobs as Slurm lists them, or that it is stopped."""
        if not self._running("slurmctld"):
            return f"{self.folder}: stopped"
        return f"{self.folder}: running\n{self.call('sinfo', '-N', '-l')}{self.call('squeue')}".rstrip()

    def _check(self, name: str) -> None:
        if name not in self.nodes:
            raise UserError(f"no node '{name}'", str(self.folder), f"it has {' '.join(self.nodes)}")

    def _launch(self, name: str, command: Sequence[str], *, tied: bool) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=node.die_with_parent if tied else None,  # noqa: PLW1509  two system calls, no lock
            )
        atomic.write_atomically(self.folder / "run" / f"{name}.pid", str(process.pid))

    def _running(self, name: str) -> int | None:
        """The pid of a daemon, if it runs: its command line must name this folder."""
        with suppress(OSError, ValueError):
            pid = int((self.folder / "run" / f"{name}.pid").read_text())
            if f"{self.folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def _kill(self, name: str) -> None:
        pid, deadline = self._running(name), time.monotonic() + STOP_S
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        while self._running(name) == pid is not None and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)

    def _logs(self) -> str:
        return f"see {self.folder / 'log'}"
