"""Where rank 0 listens: on the address that the other ranks call, and on no other if that is known."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from distributed import free_port

from bigchem.launch.rendezvous import listener
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.listener import addresses, listen, own_address

ABSENT = "198.18.99.9"
"""An address reserved for benchmarks (RFC 2544), not of this machine."""


@pytest.fixture
def place() -> Rendezvous:
    return Rendezvous(0, 2, 0, "127.0.0.1", free_port(), "slurm", "slurm 7.0 0")


def test_other_interfaces_are_closed(place: Rendezvous) -> None:
    """127.0.0.2 stands for another interface: an address of this machine, but not the given one."""
    with listen(place) as server:
        with socket.create_connection(("127.0.0.1", place.master_port), timeout=5):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", place.master_port), timeout=5)
        assert own_address(server) == "127.0.0.1"


def test_one_process_listens_for_itself_whatever_its_host_is_called(place: Rendezvous) -> None:
    with listen(replace(place, world_size=1, master_addr="gpu01.invalid")) as server:
        assert server.getsockname()[0] == "127.0.0.1"


def test_where_master_addr_is_not_of_this_host_all_are_open_and_it_is_said(
    place: Rendezvous, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container whose ports are forwarded: only the host has the address."""
    with listen(replace(place, master_addr=ABSENT)) as server:
        assert server.getsockname()[0] in ("::", "0.0.0.0")  # noqa: S104
        assert own_address(server) == "127.0.0.1"
        with socket.create_connection(("127.0.0.2", place.master_port), timeout=5):
            pass
    assert f"{ABSENT} is not an address of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        (("gpu01", "gpu01"), ["127.0.1.1"]),  # all ranks are here
        (("gpu01", "gpu02"), [""]),  # the other node would be refused at 127.0.1.1
        ((), [""]),  # the launcher does not say where the ranks are
    ],
)
def test_a_host_that_calls_itself_127_0_1_1_is_open_to_its_peers(
    place: Rendezvous, monkeypatch: pytest.MonkeyPatch, nodes: tuple[str, ...], found: list[str]
) -> None:
    """The table of names is a stand-in for /etc/hosts and DNS."""
    names = {"gpu01": ["127.0.1.1"], "gpu02": ["10.0.0.2"]}
    monkeypatch.setattr(listener, "_resolved", lambda name: names.get(name, []))
    assert addresses(replace(place, master_addr="gpu01", nodes=nodes)) == found


def test_an_address_that_others_can_call_goes_first_and_ipv4_before_ipv6(
    place: Rendezvous, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of names is a stand-in for /etc/hosts and DNS."""
    monkeypatch.setattr(listener, "_resolved", lambda name: ["127.0.1.1", "fd00::1", "10.0.0.1"])
    assert addresses(replace(place, master_addr="gpu01")) == ["10.0.0.1", "fd00::1"]


def test_a_name_with_an_address_of_this_host_is_listened_on_there(
    place: Rendezvous, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if another of its addresses is not this host's. The table of names is a stand-in."""
    monkeypatch.setattr(listener, "_resolved", lambda name: [ABSENT, "127.0.0.3"])
    with listen(replace(place, master_addr="localhost")) as server:
        assert server.getsockname()[0] == "127.0.0.3"
