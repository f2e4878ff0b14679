"""The file with the secret that a run's ranks share: one for all of them, and for nobody else."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous import secret
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.secret import FILE, VARIABLE, Signer, rendezvous_key

TWO = Rendezvous(0, 2, 0, "127.0.0.1", 20000, "slurm", "slurm 7.0 0")


def no_links(*arguments: object) -> NoReturn:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_ranks_that_ask_at_once_get_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Without hard links, as on some file systems: os.link is a stand-in then."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with ThreadPoolExecutor(32) as ranks:
        keys = set(ranks.map(lambda _: rendezvous_key(tmp_path / "run", TWO), range(32)))
    (key,) = keys
    assert key is not None
    assert len(key) == 64
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]
    assert stat.S_IMODE((tmp_path / "run" / FILE).stat().st_mode) == 0o600


def test_it_stays_the_same_over_attempts_and_differs_between_runs(tmp_path: Path) -> None:
    key = rendezvous_key(tmp_path / "a", TWO)
    assert rendezvous_key(tmp_path / "a", replace(TWO, rank=1, key="slurm 7.0 1")) == key
    assert rendezvous_key(tmp_path / "b", TWO) != key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    rendezvous_key(tmp_path, TWO)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(UserError, match=f"its mode is {mode:o}"):
        rendezvous_key(tmp_path, TWO)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    rendezvous_key(tmp_path, TWO)
    os.chown(tmp_path / FILE, 65534, -1)
    with pytest.raises(UserError, match="belongs to another user, of id 65534"):
        rendezvous_key(tmp_path, TWO)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    rendezvous_key(tmp_path / "elsewhere", TWO)
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere" / FILE)
    with pytest.raises(UserError, match="cannot be read"):
        rendezvous_key(tmp_path, TWO)


def test_a_file_that_stays_empty_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "SHOWS_S", 0.1)
    (tmp_path / FILE).touch(mode=0o600)
    with pytest.raises(UserError, match="empty"):
        rendezvous_key(tmp_path, TWO)


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be"):
        rendezvous_key(tmp_path / "file", TWO)


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "k" * 32)
    assert rendezvous_key(tmp_path, TWO) == "k" * 32
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(UserError, match="shorter than 16"):
        rendezvous_key(tmp_path, TWO)


def test_one_process_and_torchruns_own_store_need_none(tmp_path: Path) -> None:
    assert rendezvous_key(tmp_path, replace(TWO, world_size=1)) is None
    assert rendezvous_key(tmp_path, replace(TWO, agent=True)) is None
    assert not list(tmp_path.iterdir())


def test_a_signature_is_of_a_speaker_an_attempt_and_every_part() -> None:
    seal = Signer("k" * 32, "slurm 7.0 0")
    signature = seal.signature(b"rank", b"challenge", b"nonce", b"card")
    assert seal.holds(signature, b"rank", b"challenge", b"nonce", b"card")
    for parts in ((b"roster", b"challenge", b"nonce", b"card"), (b"rank", b"challenge", b"nonce", b"cord"), (b"rank",)):
        assert not seal.holds(signature, *parts)
    assert not Signer("k" * 32, "slurm 7.0 1").holds(signature, b"rank", b"challenge", b"nonce", b"card")
    assert not seal.holds(b"\xff\xc3\xa9", b"rank")
