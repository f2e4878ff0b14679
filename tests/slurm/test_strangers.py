"""Who cannot use a testbed: other users of this machine, holders of another munge key, other hosts."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bigchem.launch.slurm.testbed import conf
from bigchem.launch.slurm.testbed.bed import ADMIN, Bed

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
LISTENING = "0A"
"""A socket's state in /proc/net/tcp."""
HERE, THERE = "198.18.77.1", "198.18.77.2"
"""Of a network for measurements (RFC 2544), which no machine routes."""
TRY = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=5).close()
        print(port, "connected")
    except OSError as error:
        print(port, type(error).__name__)
"""


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every user can read."""
    with_access = Path("/tmp") / f"strangers-{secrets.token_hex(4)}"  # noqa: S108  pytest's own are closed to others
    with_access.mkdir(mode=0o755)
    yield with_access
    shutil.rmtree(with_access)


def submitted(conf_file: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """sbatch's message about a job."""
    words = [*before, "sbatch", "--output=/dev/null", "--chdir=/", "--wrap=true"]
    env = {**os.environ, "SLURM_CONF": str(conf_file)}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=False, cwd="/")


def jobs(bed: Bed) -> str:
    return bed.call("squeue", "--noheader", "--states=all", "--format=%i")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
def test_another_user_of_this_machine_is_refused(testbed: Bed, shared: Path) -> None:
    """Even a user with a copy of its configuration."""
    before = jobs(testbed)
    shutil.copy(testbed.folder / "slurm.conf", shared)
    done = submitted(shared / "slurm.conf", *AS_NOBODY)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    assert "Protocol authentication error" in done.stderr
    for secret in ("slurm.conf", "munge/key", "state"):
        read = subprocess.run([*AS_NOBODY, "stat", str(testbed.folder / secret)], capture_output=True, check=False)
        assert read.returncode != 0, secret
    assert jobs(testbed) == before


def test_a_client_with_another_munge_key_is_refused(testbed: Bed, shared: Path) -> None:
    before, folder = jobs(testbed), shared / "munge"
    folder.mkdir(mode=0o700)
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(secrets.token_bytes(128))
    text = (testbed.folder / "slurm.conf").read_text()
    own = text.replace(str(conf.munge_socket(testbed.folder)), str(folder / "socket"))
    assert own != text
    (shared / "slurm.conf").write_text(own)
    files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "seed", "log")]
    munged = shutil.which("munged", path=os.pathsep.join([os.environ["PATH"], ADMIN]))
    words = [str(munged), "--foreground", "--force", f"--socket={folder / 'socket'}", *files]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 10
            while not (folder / "socket").is_socket():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            done = submitted(shared / "slurm.conf")
        finally:
            daemon.send_signal(signal.SIGTERM)
    assert done.returncode != 0
    assert "Submitted" not in done.stdout
    assert "Protocol authentication error" in (testbed.folder / "log" / "slurmctld.log").read_text()
    assert jobs(testbed) == before


@contextmanager
def steps(bed: Bed) -> Iterator[None]:
    """While entered, an srun of ours runs on both nodes, and another has started an srun on a node."""
    env, quiet = {**os.environ, **bed.environment()}, subprocess.DEVNULL
    commands = [["srun", "--nodes=2", "sleep", "60"], ["srun", "--nodes=1", "srun", "--overlap", "sleep", "60"]]
    sruns = [subprocess.Popen(words, env=env, stdin=quiet, stdout=quiet, stderr=quiet) for words in commands]
    try:
        deadline = time.monotonic() + 20
        while len(bed.call("squeue", "--noheader", "--steps", "--format=%i").splitlines()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        bed.call("scancel", "--signal=KILL", "--user", str(os.geteuid()))
        for srun in sruns:
            srun.wait(20)


def listening(bed: Bed) -> dict[int, str]:
    """Ports on which processes of the testbed listen, and their addresses in /proc's hexadecimals."""
    found: dict[str, tuple[int, str]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                address, port = fields[1].split(":")
                found[f"socket:[{fields[9]}]"] = (int(port, 16), address)
    ports = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            name = (process / "comm").read_text().strip()
            if f"{bed.folder}/".encode() in text and re.match("slurm|srun", name):
                held = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
                ports.update(found[inode] for inode in held if inode in found)
    return ports


def test_all_that_listens_does_so_on_127_0_0_1(testbed: Bed) -> None:
    with steps(testbed):
        ports = listening(testbed)
    assert {testbed.port, testbed.port + 1, testbed.port + 2} < ports.keys()
    assert len(ports) > 5  # those of srun, here and on a node
    assert set(ports.values()) == {"0100007F"}


@contextmanager
def another_host() -> Iterator[list[str]]:
    """A network namespace at the other end of a cable; the command prefix that runs a program there."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("another host is made by root with iproute2")
    near, far = f"bed{os.getpid() % 10**6}a", f"bed{os.getpid() % 10**6}b"
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as host:
        inside = ["nsenter", "--target", str(host.pid), "--net"]
        try:
            while Path(f"/proc/{host.pid}/ns/net").samefile("/proc/self/ns/net"):
                time.sleep(0.01)
            cable = ["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(host.pid)]
            made = subprocess.run(cable, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no cable to another host: {made.stderr.strip()}")
            for words in (
                ["ip", "address", "add", f"{HERE}/30", "dev", near],
                ["ip", "link", "set", near, "up"],
                [*inside, "ip", "address", "add", f"{THERE}/30", "dev", far],
                [*inside, "ip", "link", "set", far, "up"],
            ):
                subprocess.run(words, check=True)
            yield inside
        finally:
            host.kill()
            subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)


def test_another_host_is_refused(testbed: Bed) -> None:
    with another_host() as inside, socket.create_server((HERE, 0)) as open_to_all, steps(testbed):
        ports = [open_to_all.getsockname()[1], *listening(testbed)]
        words = [*inside, sys.executable, "-S", "-c", TRY, HERE, *map(str, ports)]
        output = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert output[0] == f"{ports[0]} connected"
    assert len(ports) > 6
    assert output[1:] == [f"{port} ConnectionRefusedError" for port in ports[1:]]
