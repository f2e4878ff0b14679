"""One node of a testbed: the first process of its own namespaces, as which `unshare` starts this file.

The namespace of processes makes one SIGKILL take the whole node down, that of names makes gethostname() the node's
name, and that of mounts gives the node an /etc/hosts of its own, so that nodes find each other and the machine's file
stays as it is.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path

MS_BIND = 4096
"""<sys/mount.h>"""
PR_SET_PDEATHSIG, SIGKILL = 1, 9
"""<sys/prctl.h>"""


def unshared(*, as_root: bool) -> list[str]:
    """The command in front of a node's. as_root: else a namespace of users gives the right to make the others."""
    more = [] if as_root else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *more, "--uts", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


def die_with_parent() -> None:
    """Run in a child: the kernel kills it when the process that started it ends in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


def be_node(name: str, hosts: Path, slurmd: str, conf: str) -> int:
    """Becomes the node, and runs its slurmd; slurmd's exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(str(hosts).encode(), b"/etc/hosts", None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"mount of {hosts}")
    socket.sethostname(name)
    daemon = os.spawnv(os.P_NOWAIT, slurmd, [slurmd, "-D", "-N", name, "-f", conf])  # noqa: S606
    while True:  # the first process inherits the others' orphans, which must be waited for
        pid, status = os.wait()
        if pid == daemon:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(be_node(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
