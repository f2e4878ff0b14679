"""DeepSpeed's compiled operations: one is disabled, and the others are built once and shared by all processes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from distributed import run_ranks
from own_path import without_ninja
from runs import config_of

from bigchem.base import file_lock, toml
from bigchem.base.errors import UserError
from bigchem.launch.rendezvous import extensions
from bigchem.launch.rendezvous.extensions import library_of, load

BIN = Path(sys.executable).parent


def _start() -> tuple[bool, float, str | None]:
    """Whether DeepSpeed has its operation for shared memory, a sum over ranks by DeepSpeed's own collectives, and which
    ninja a rank finds."""
    import torch
    from deepspeed import comm

    total = torch.tensor([comm.get_rank() + 1.0])
    comm.all_reduce(total)
    return comm.comm.cdb.shm_comm_op is not None, float(total), shutil.which("ninja")


def test_ranks_on_cpus_start_with_nothing_to_compile_with_and_compile_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds, empty = tmp_path / "builds", tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(builds))
    monkeypatch.setenv("PATH", str(empty))
    assert run_ranks(_start, 2) == [(False, 3.0, str(BIN / "ninja"))] * 2
    assert not builds.exists()


class TinyBuilder:
    """Stands in for DeepSpeed's builders, whose operations take a minute: a module of a few lines, built where torch
    would build it. It notes each build in a file."""

    _loaded_ops: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def sources(self) -> list[str]:
        return ["tiny.c"]

    def deepspeed_src_path(self, path: str) -> str:
        return str(self.folder / path)

    def load(self, verbose: bool = True) -> None:
        with (self.folder / "built").open("a") as log:
            log.write(f"{self.name}\n")
        library = Path(os.environ["TORCH_EXTENSIONS_DIR"]) / self.name / f"{self.name}.so"
        library.parent.mkdir()
        names = [f'-DNAME="{self.name}"', f"-DINIT=PyInit_{self.name}", f"-I{sysconfig.get_path('include')}"]
        subprocess.run(["gcc", "-shared", "-fPIC", *names, self.folder / "tiny.c", "-o", library], check=True)
        spec = importlib.util.spec_from_file_location(self.name, library)
        assert spec is not None
        self._loaded_ops[self.name] = importlib.util.module_from_spec(spec)

    def built(self) -> list[str]:
        return (self.folder / "built").read_text().split()


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "builds"))
    monkeypatch.setattr(TinyBuilder, "_loaded_ops", {})
    (tmp_path / "tiny.c").write_text(
        "#include <Python.h>\nstatic struct PyModuleDef tiny = {PyModuleDef_HEAD_INIT, NAME};\n"
        "PyMODINIT_FUNC INIT(void) { return PyModule_Create(&tiny); }\n"
    )
    return tmp_path


HOLD = """
import sys, time
from pathlib import Path
from bigchem.base.file_lock import exclusive
with exclusive(Path(sys.argv[1]), "compiles " + Path(sys.argv[1]).stem):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def stopped_compiler(library: Path) -> Iterator[int]:
    """A stopped process that holds an operation's lock, as if compiling; its pid."""
    library.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, library.with_suffix(".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            process.send_signal(signal.SIGSTOP)
            yield process.pid
        finally:
            process.kill()


def test_a_stopped_compiler_is_named_to_those_who_wait_and_the_wait_ends_with_what_to_do(
    builds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extensions, "BUILD_TIMEOUT_S", 3.0)
    builder = TinyBuilder("tiny", builds)
    with stopped_compiler(library_of(builder)) as pid:
        with pytest.raises(UserError, match=rf"waited 3 s for pid {pid} on .*, which compiles tiny") as error:
            load(builder)
        assert f"kill -9 {pid}" in str(error.value.hint)
        assert f"waiting for pid {pid} on " in capsys.readouterr().err


def test_neither_another_operation_nor_a_build_that_is_there_waits_for_a_stopped_compiler(builds: Path) -> None:
    builder, other = TinyBuilder("tiny", builds), TinyBuilder("other", builds)
    with stopped_compiler(library_of(builder)):
        load(other)
        begun = time.monotonic()
        other._loaded_ops.clear()  # as in a new process
        with stopped_compiler(library_of(other)):
            load(other)
        assert time.monotonic() - begun < file_lock.REPORT_AFTER_S + 5
    assert other.built() == ["other"]
    assert other._loaded_ops["other"].__name__ == "other"


def test_what_a_killed_build_left_is_removed_by_the_next(builds: Path) -> None:
    builder = TinyBuilder("tiny", builds)
    left = library_of(builder).parent / "tiny.killed"
    left.mkdir(parents=True)
    load(builder)
    assert sorted(path.name for path in left.parent.iterdir()) == ["tiny.lock", "tiny.so"]


def _load_tiny(folder: Path) -> str:
    builder = TinyBuilder("tiny", folder)
    load(builder)
    return str(builder._loaded_ops["tiny"].__name__)


def test_of_ranks_that_start_at_once_one_compiles(builds: Path) -> None:
    assert run_ranks(_load_tiny, 3, builds) == ["tiny"] * 3
    assert TinyBuilder("tiny", builds).built() == ["tiny"]


def test_a_build_that_cannot_be_loaded_says_which_file_to_remove(builds: Path) -> None:
    library = library_of(TinyBuilder("tiny", builds))
    library.parent.mkdir(parents=True)
    library.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"tiny\.so: cannot be loaded.*\nnext: remove it"):
        load(TinyBuilder("tiny", builds))


LOAD_AGAIN = (
    "from bigchem.launch.rendezvous.extensions import load_cpu_adam as l; l(); from deepspeed.ops.adam import *; "
)
LOAD_AGAIN += "import torch; DeepSpeedCPUAdam([torch.nn.Parameter(torch.ones(8))])"


@pytest.mark.slow  # a minute, for the real operation
def test_an_offloaded_run_starts_from_a_shell_without_ninja_and_its_build_serves_without_a_compiler(
    small_data: Path, tmp_path: Path
) -> None:
    """The second process has neither ninja nor g++, and loads DeepSpeed's optimizer anyway: if it did not find the
    build where DeepSpeed checks first, it would call them."""
    train = {"steps": 3, "ds_config": "zero2_offload"}
    config = config_of(tmp_path / "runs", small_data, "offloaded", train=train, evaluate={"at_end": False})
    (tmp_path / "run.toml").write_text(toml.dump(config))
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "builds")}
    environment["PATH"] = str(without_ninja(tmp_path / "bin"))
    command = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "bigchem", "train"]
    done = subprocess.run(
        [*command, tmp_path / "run.toml"], env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((config.run_dir / "state.json").read_text())
    assert (state["state"], state["step"]) == ("trained", 3)
    (library,) = (tmp_path / "builds").rglob("*.so")
    built = library.stat()
    (tmp_path / "empty").mkdir()
    environment["PATH"] = str(tmp_path / "empty")
    again = subprocess.run(
        [sys.executable, "-c", LOAD_AGAIN], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert "compiling" not in again.stdout
    assert library.stat() == built


def test_deepspeeds_muon_is_imported_without_inductor_and_torch_compile_is_as_before() -> None:
    code = (
        "import sys, torch; from bigchem.launch.rendezvous.extensions import leave_muon_uncompiled\n"
        "before = torch.compile; leave_muon_uncompiled(); assert torch.compile is before\n"
        "import deepspeed.runtime.zero.muon.muon_optimizer\n"
        "print(*({'torch._dynamo', 'torch._inductor.compile_fx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == ""
