"""Gives a program of Slurm's names of its own: `unshare` starts this file in new namespaces.

Slurm's programs listen on the address of their host's name. Here that is a node's name or `localhost`, and 127.0.0.1,
so nothing listens where other hosts could call. The namespace of mounts gives a node an /etc/hosts of its own, so that
nodes find each other and the machine's file stays as it is. A node has a namespace of processes too, and this file is
its first: one SIGKILL takes it down with all that runs on it.
"""

from __future__ import annotations

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
    """The command in front of this file's. more: namespaces beside that of names. as_root: else a namespace of users
    gives the right to make the others."""
    return ["unshare", *([] if as_root else ["--user", "--map-current-user", "--keep-caps"]), "--uts", *more]


def die_with_parent() -> None:
    """Run in a child: the kernel kills it when the process that started it ends in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


def mount(source: str, target: str) -> None:
    """Shows a file at another path, in this namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"mount of {source}")


def be_first(command: list[str]) -> int:
    """Runs a daemon as the first process of a namespace, which inherits the others' orphans and has to wait for them;
    the daemon's exit code."""
    daemon = os.spawnv(os.P_NOWAIT, command[0], command)  # noqa: S606
    while True:
        pid, status = os.wait()
        if pid == daemon:
            return os.waitstatus_to_exitcode(status)


def main(name: str, hosts: str, command: list[str]) -> int:
    """Runs a command with a host's name of its own. hosts: its /etc/hosts; empty: the machine's."""
    if hosts:
        mount(hosts, "/etc/hosts")
    socket.sethostname(name)
    if os.getpid() != 1:
        os.execv(command[0], command)  # noqa: S606
    return be_first(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
