"""A run folder's records contain no secrets, and no other user's code is run from it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.cluster import pickles
from bigchem.launch.cluster.profile import ClusterProfile, load_profile, recorded
from bigchem.launch.runs.prepare import environment, git_state

WORD = "hf_" + "Zx" * 12


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a committed package, and a change that contains a secret."""
    package = tmp_path / "checkout" / "bigchem"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", "-A")
    git(package.parent, "commit", "-q", "-m", "first")
    (package / "__init__.py").write_text(f"x = 2\nHF_TOKEN = '{WORD}'\n")
    return package


def test_the_state_of_the_own_checkout_is_recorded_without_secrets(checkout: Path) -> None:
    state = git_state(checkout)
    assert state.startswith("commit ")
    assert "+x = 2" in state
    assert WORD not in state


def test_a_package_inside_another_repository_says_nothing_of_that_one(checkout: Path) -> None:
    inside = checkout.parent / ".venv" / "site-packages" / "bigchem"
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    assert "not a checkout" in git_state(inside)
    git(checkout.parent, "add", "-A", "-f")  # not even if it is committed there
    git(checkout.parent, "commit", "-q", "-m", "second")
    assert "not a checkout" in git_state(inside)


def test_programs_that_a_repository_names_are_not_run(checkout: Path, tmp_path: Path) -> None:
    git(checkout.parent, "config", "diff.external", f"touch {tmp_path / 'run'} ;")
    assert "+x = 2" in git_state(checkout)
    assert not (tmp_path / "run").exists()


def test_a_command_line_is_recorded_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bigchem", "--token", "abc", f"HF_TOKEN={WORD}"])
    assert environment()["argv"] == ["bigchem", "--token", "***", "HF_TOKEN=***"]


PROFILE = ClusterProfile(
    executor="slurm", env={"HF_TOKEN": WORD, "NCCL_DEBUG": "WARN"}, setup=("module load cuda",), partition="gpu"
)


def test_a_recorded_profile_has_no_secrets_and_takes_them_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(recorded(PROFILE))
    assert WORD not in file.read_text()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"env.HF_TOKEN is a secret, which is not recorded\nnext: export HF_TOKEN"):
        load_profile(str(file))
    monkeypatch.setenv("HF_TOKEN", WORD)
    assert load_profile(str(file)) == PROFILE


def test_a_secret_in_a_setup_line_asks_for_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(recorded(PROFILE.model_copy(update={"env": {}, "setup": (f"export HF_TOKEN={WORD}",)})))
    with pytest.raises(UserError, match=r"setup is a secret, which is not recorded\nnext: give --cluster"):
        load_profile(str(file))


def test_a_pickle_in_anothers_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "1_0_result.pkl"
    file.write_bytes(pickle.dumps(("success", 3)))
    assert pickles.result(file) == ("success", 3)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    os.chown(file, 54321, -1) if os.getuid() == 0 else None
    with pytest.raises(UserError, match="belongs to another user"):
        pickles.result(file)
