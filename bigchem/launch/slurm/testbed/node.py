"""Gives a Slurm program its own hostname: `unshare` starts this file in new namespaces.

Slurm's programs listen on their hostname's address. Here that is a node's name or `localhost`, and 127.0.0.1, so other
hosts cannot connect. The mount namespace gives a node its own /etc/hosts, so that nodes find each other and the
machine's file stays unchanged. A node also has a process namespace with this file as its first process: one SIGKILL
ends it and everything on it.
"""

import ctypes
import os
import socket
import sys

MS_BIND = 4096
"""<sys/mount.h>"""
PR_SET_PDEATHSIG, SIGKILL = 1, 9
"""<sys/prctl.h>"""
OWN_PROCESSES = ["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


def unshared(*more: str, as_root: bool) -> list[str]:
    """The command prefix of this file. more: namespaces besides the one for hostnames. as_root: no user namespace is
    needed to create the others."""
    return ["unshare", *([] if as_root else ["--user", "--map-current-user", "--keep-caps"]), "--uts", *more]


def die_with_parent() -> None:
    """Run in a child: the kernel kills it when its parent ends in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


def mount(source: str, target: str) -> None:
    """Bind-mounts a file at another path in this namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"mount of {source}")


def be_first(command: list[str]) -> int:
    """Runs a daemon as a namespace's first process, which inherits orphans and has to wait for them; returns the
    daemon's exit code."""
    daemon = os.spawnv(os.P_NOWAIT, command[0], command)  # noqa: S606
    while True:
        pid, status = os.wait()
        if pid == daemon:
            return os.waitstatus_to_exitcode(status)


def main(name: str, hosts: str, command: list[str]) -> int:
    """Runs a command with its own hostname. hosts: its /etc/hosts; empty: the machine's."""
    if hosts:
        mount(hosts, "/etc/hosts")
    socket.sethostname(name)
    if os.getpid() != 1:
        os.execv(command[0], command)  # noqa: S606
    return be_first(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
