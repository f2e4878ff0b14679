"""`bigchem logs` during a run. Its job is a sleeping process here; real ones are in test_submit.py."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from owners import owned

from bigchem.base.errors import UserError
from bigchem.launch.runs import logs


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A run folder whose job is alive."""
    job = subprocess.Popen(["sleep", "60"])
    folder = tmp_path / "base"
    (folder / "logs").mkdir(parents=True)
    (folder / "config.toml").write_text("")
    say(folder, "running")
    owned(folder, str(job.pid), "local")
    yield folder, job
    job.kill()
    job.wait()


def say(folder: Path, state: str) -> None:
    (folder / "state.json").write_text(json.dumps({"state": state, "step": 3, "steps": 9, "time": time.time()}))


def append(folder: Path, text: str, rank: int = 0) -> None:
    with (folder / "logs" / f"rank{rank}.log").open("a") as file:
        file.write(text)


class Out(io.BytesIO):
    """Bytes, for threads."""

    def has(self, text: str) -> bool:
        deadline = time.monotonic() + 20
        while text.encode() not in self.getvalue():
            assert time.monotonic() < deadline, self.getvalue()
            time.sleep(0.02)
        return True


def test_a_log_is_waited_for_followed_over_attempts_and_ends_with_the_run(
    run: tuple[Path, subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, job = run
    out = Out()
    follower = threading.Thread(target=logs.show, args=(folder, out), kwargs={"follow": True})
    follower.start()
    time.sleep(0.1)
    append(folder, "step 1\n")
    assert out.has("step 1\n")
    append(folder, "step 2\nhalf a ")
    assert out.has("half a ")
    append(folder, "line\n")  # of the next attempt: the same file
    say(folder, "finished")
    append(folder, "the last one\n")
    job.kill()
    follower.join(timeout=20)
    assert not follower.is_alive()
    assert out.getvalue().decode() == "step 1\nstep 2\nhalf a line\nthe last one\n"
    output = capsys.readouterr().err
    assert "base is running: no log yet, waiting" in output
    assert output.endswith("base is finished, 3/9\n")


def test_the_last_lines_of_a_rank_are_shown(run: tuple[Path, subprocess.Popen[bytes]]) -> None:
    folder, _ = run
    append(folder, "a\nb\nc\n")
    append(folder, "x\n", rank=1)
    for rank, lines, shown in [(0, 2, b"b\nc\n"), (0, 9, b"a\nb\nc\n"), (1, 1, b"x\n"), (0, 0, b"")]:
        out = Out()
        logs.show(folder, out, rank=rank, lines=lines)
        assert out.getvalue() == shown
    with pytest.raises(UserError, match="no log of rank 7") as error:
        logs.show(folder, Out(), rank=7)
    assert "ranks 0 to 1" in str(error.value)


def test_a_job_that_ended_before_its_ranks_had_logs_is_heard(
    run: tuple[Path, subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, job = run
    with pytest.raises(UserError, match="no log yet: the run is running"):
        logs.show(folder, Out())
    job.kill()
    job.wait()
    written = folder / "submitit" / str(job.pid) / f"{job.pid}_0_log.err"
    written.parent.mkdir(parents=True)
    written.write_text("ModuleNotFoundError: No module named 'torch'\n")
    out = Out()
    logs.show(folder, out, follow=True)
    assert b"No module named 'torch'" in out.getvalue()
    assert str(written) in capsys.readouterr().err


def test_a_rank_whose_log_comes_after_that_of_another_is_no_mistake(
    run: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    """Processes start in any order: here rank 1 was faster, and rank 2 is known from the submission."""
    folder, job = run
    append(folder, "x\n", rank=1)
    owned(folder, str(job.pid), "local", world_size=3)
    for rank in (0, 2):
        with pytest.raises(UserError, match="no log yet"):  # what -f waits for
            logs.show(folder, Out(), rank=rank)
    with pytest.raises(UserError, match="no log of rank 3"):
        logs.show(folder, Out(), rank=3)
