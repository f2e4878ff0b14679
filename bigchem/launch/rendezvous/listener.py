"""Rank 0's listener: on the address by which the other ranks call it, and on no other interface."""

import errno
import ipaddress
import platform
import socket
import sys

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous

BACKLOG = 4096
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
"""EINVAL: a link-local IPv6 address, whose interface the name does not give."""


def listen(place: Rendezvous) -> socket.socket:
    """A listener on the first free port of rank 0's. UserError if all are taken."""
    trouble: OSError | None = None
    for port in place.ports():
        for address in addresses(place):
            try:
                return _server(address, port)
            except OSError as error:
                trouble = error
                if error.errno not in NOT_HERE:
                    break  # the other ranks would reach whoever listens on this address
        else:
            print(f"{place.master_addr} is not an address of {platform.node()}: rank 0 listens on all", file=sys.stderr)
            try:
                return _server("", port)
            except OSError as error:
                trouble = error
    tried = ", ".join(map(str, place.ports()))
    reason = trouble.strerror if trouble else "none"
    raise UserError(
        f"rank 0 cannot listen on {platform.node()}, port {tried}: {reason}", "MASTER_PORT", "choose another"
    )


def addresses(place: Rendezvous) -> list[str]:
    """The addresses that MASTER_ADDR resolves to, IPv4 first. Many systems list 127.0.1.1 for their own name in
    /etc/hosts, which no other host can call: then the other addresses, or `""`, all interfaces, if there are none."""
    if place.world_size == 1:
        return ["127.0.0.1"]
    found = sorted(_resolved(place.master_addr), key=lambda address: ":" in address)
    if place.master_addr == "localhost" or is_address(place.master_addr):
        return found
    open_to_others = [address for address in found if not _is_local(address)]
    return open_to_others or (found if found and _alone(place) else [""])


def is_address(text: str) -> bool:
    """Whether it is an IP address, not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _resolved(name: str) -> list[str]:
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return []
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def _is_local(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _alone(place: Rendezvous) -> bool:
    """Whether all ranks are known to be on this machine: every node's name resolves to loopback addresses."""
    return bool(place.nodes) and all(all(map(_is_local, _resolved(node) or ["0.0.0.0"])) for node in set(place.nodes))  # noqa: S104


def _server(address: str, port: int) -> socket.socket:
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG, reuse_port=False
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=BACKLOG)


def own_address(listener: socket.socket) -> str:
    """The address by which this machine calls its own listener."""
    address = str(listener.getsockname()[0])
    return "127.0.0.1" if address in ("0.0.0.0", "::") else address  # noqa: S104
