"""A check of this machine that fails is one line in its cell, with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.base.installed import packages
from bigchem.launch.doctor import machine
from bigchem.launch.doctor.facts import Check

TRACE = """FailedJobError: Job (task=0) failed during processing with trace:
----------------------
Traceback (most recent call last):
  File "x.py", line 3, in f
    raise ValueError("inner")
ValueError: inner

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 5, in f
{raised}

----------------------
You can check full logs with 'job.stderr(0)'
  - /tmp/0_log.err: see there
"""


def raising(error: Exception) -> Callable[[], Check]:
    def check() -> Check:
        raise error

    return check


def test_no_cell_holds_a_traceback() -> None:
    found = machine.guarded("all-reduce", raising(RuntimeError(TRACE.format(raised="ArithmeticError: the sum is 2.0"))))
    assert (found.verdict, found.found) == ("fail", "ArithmeticError: the sum is 2.0")
    assert "--processes 0" in found.next
    user = "bigchem.base.errors.UserError: RANK: two ranks share a GPU\nnext: start fewer processes"
    assert machine.reason(TRACE.format(raised=user)) == "RANK: two ranks share a GPU; next: start fewer processes"
    assert machine.guarded("disk", raising(OSError(28, "No space left"))).found == "OSError: [Errno 28] No space left"
    given = machine.guarded("torch", raising(UserError("torch sees no GPU", "CUDA_VISIBLE_DEVICES", "unset it")))
    assert (given.found, given.next) == ("CUDA_VISIBLE_DEVICES: torch sees no GPU", "unset it")


def test_what_is_missing_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> Check:
        import no_such_package.inside  # noqa: F401

        return Check("torch", "ok", "")

    found = machine.guarded("deepspeed", check)
    assert (found.found, found.next) == ("no_such_package is not installed", packages.install("no_such_package"))
    monkeypatch.setattr(packages, "version_of", lambda name: None if name in ("fcd", "gradio") else "1")
    optional = machine._optional()
    assert optional.found == "not installed: fcd, serve"
    assert all(need in optional.next for need in ("fcd", "gradio"))
    monkeypatch.setenv("PATH", "/nowhere")
    compiler = machine._compiler()
    assert "apt-get install g++" in compiler.next
    assert packages.install("ninja") in compiler.next


@pytest.mark.parametrize(("said", "found"), [("", "fails"), ("warning\nerror: no controller", "no controller")])
def test_a_slurm_program_that_fails_is_told_with_or_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: str
) -> None:
    """Stand-ins for Slurm's programs."""
    for name in ("sbatch", "sinfo", "sacct"):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for check in (machine._slurm, machine._accounting):
        made = check()
        assert (made.verdict, found in made.found) == ("warn", True)
