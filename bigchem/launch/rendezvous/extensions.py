"""DeepSpeed's compiled operations: one is disabled, and CPU Adam is compiled once and shared by all processes.

    ~/.cache/bigchem/torch_extensions/KEY/cpu_adam.so      complete, or absent
                                         /cpu_adam.lock    locked by the process that compiles it
                                         /cpu_adam.*/      where it compiles

Torch's own builds share one folder. There, a killed process leaves a lock file for which all others wait silently and
indefinitely, and a second version of ninja takes the first one's build for outdated and compiles it again.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.file_lock import exclusive

BUILD_TIMEOUT_S = 1800.0
"""How long a process waits for another's build: a build takes a minute on two idle cores, and took more than ten on two
that a dozen processes shared."""


def leave_out_shared_memory_op() -> None:
    """Stops DeepSpeed from compiling its all-reduce over shared memory when a process group starts on a CPU.

    Only `inference_all_reduce` uses it, which tensor-parallel layers call. Training's collectives are gloo's. The table
    is replaced unread, because reading it probes every operation with the compiler, and nothing else asks for it.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}


def leave_muon_uncompiled() -> None:
    """Imports DeepSpeed's Muon optimizer with `torch.compile` switched off.

    Every DeepSpeed engine imports it to ask whether it is in use, which in bigchem it never is. Its decorators load
    Inductor: 1.1 s of processor time in every rank (DeepSpeed 0.19, torch 2.13).
    """
    import torch

    compile_function = torch.compile

    def uncompiled(model: Any = None, **options: Any) -> Any:
        return model if model is not None else lambda function: function

    torch.compile = uncompiled  # type: ignore[assignment]
    try:
        with suppress(ImportError):  # another version may not have it
            import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        torch.compile = compile_function


def load_cpu_adam() -> None:
    """Loads DeepSpeed's optimizer for states offloaded to the CPU, after compiling it if no process has yet.

    UserError if it cannot be compiled, or if another process has been compiling it for BUILD_TIMEOUT_S.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        load(CPUAdamBuilder())
    except UserError:
        raise
    except Exception as error:  # torch's builds raise several kinds
        reason = (str(error).splitlines() or [repr(error)])[0]
        hint = "install g++, or do not offload"
        raise UserError(f"DeepSpeed's CPU Adam cannot be compiled: {reason}", None, hint) from error


def load(builder: Any) -> None:
    """Loads the operation of a DeepSpeed builder, after compiling it if this environment has no build."""
    from deepspeed.git_version_info import installed_ops

    if installed_ops.get(builder.name, False):  # compiled when DeepSpeed was installed
        builder.load()
        return
    library = library_of(builder)
    if not library.is_file():
        _compile(builder, library)
    if builder.name in builder._loaded_ops:
        return
    spec = importlib.util.spec_from_file_location(builder.name, library)
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is not an extension module")
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"cannot be loaded: {error}", str(library), "remove it, and it is compiled again") from error
    builder._loaded_ops[builder.name] = module  # DeepSpeed checks here before it calls ninja


def library_of(builder: Any) -> Path:
    """Where an operation's build is, or will be. The folder's name is a hash of what decides whether a build can be
    used: the environment, the versions of Python, C library, torch and DeepSpeed, the sources, and the CPU, for whose
    instruction set DeepSpeed compiles. Its flags follow from these."""
    import deepspeed
    import torch

    digest = hashlib.sha256()
    for word in (sys.prefix, sys.version, *platform.libc_ver(), torch.__version__, deepspeed.__version__, _cpu()):
        digest.update(f"{word}\n".encode())
    for source in builder.sources():
        digest.update(Path(builder.deepspeed_src_path(source)).read_bytes())
    home = Path.home() / ".cache" / "bigchem" / "torch_extensions"
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or home)
    return root / digest.hexdigest()[:12] / f"{builder.name}.so"


def _compile(builder: Any, library: Path) -> None:
    """Compiles in this process's own folder; the result is renamed when complete."""
    folder = library.parent
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(library.with_suffix(".lock"), f"compiles {builder.name}", timeout_s=BUILD_TIMEOUT_S) as alone:
        if library.is_file():  # the process that held the lock has made it
            return
        if alone:
            for killed in folder.glob(f"{builder.name}.*/"):
                shutil.rmtree(killed, ignore_errors=True)
        print(f"compiling DeepSpeed's {builder.name}: about a minute, once per environment", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"{builder.name}.", dir=folder) as own, _torch_builds_in(own):
            builder.load(verbose=False)
            (Path(own) / builder.name / library.name).replace(library)


@contextmanager
def _torch_builds_in(folder: str) -> Iterator[None]:
    before = os.environ.get("TORCH_EXTENSIONS_DIR")
    os.environ["TORCH_EXTENSIONS_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_EXTENSIONS_DIR"]
        else:
            os.environ["TORCH_EXTENSIONS_DIR"] = before


def _cpu() -> str:
    """The model and the instruction set of the CPU."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return platform.processor()
    used = ("vendor_id", "model", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(used))
