"""Setup lines, run by a real bash."""

from __future__ import annotations

import subprocess

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.slurm.setup import check, guarded


def bash(*lines: str) -> subprocess.CompletedProcess[str]:
    """A batch script with these setup lines; its failure report prints its arguments."""
    script = "\n".join([*guarded(lines, "printf 'reported <%s> <%s>\\n'"), "echo went on; false; echo to the end"])
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=10, check=False)


def test_the_first_line_that_fails_ends_the_script_and_is_reported() -> None:
    done = bash("true", "cd '/no where'", "echo never")
    assert (done.returncode, done.stdout) == (2, "reported <1> <cd '/no where'>\n")
    assert "setup failed (exit code 1): cd '/no where'" in done.stderr


def test_lines_that_work_leave_their_marks_and_no_options_behind() -> None:
    done = bash("# modules", "", "set -eu", "false || export A=1  # why not", "if true; then\n  B=2\nfi", 'echo "$A$B"')
    assert (done.returncode, done.stdout) == (0, "12\nwent on\nto the end\n")


def test_commands_inside_of_what_a_line_sources_may_fail() -> None:
    assert bash("eval 'false; true'").stdout == "went on\nto the end\n"


def test_a_line_that_is_no_whole_command_is_refused_before_it_is_submitted() -> None:
    check(["module load cuda", "# remark", "if true; then\n  true\nfi"])
    with pytest.raises(UserError, match=r"(?s)setup: 'if true; then' is not a complete command.*into one string"):
        check(["if true; then", "  true", "fi"])
