"""Compiles the kernels ahead of time, without a GPU, and reads the compiler's report: registers, stack, shared memory,
and the instructions of its loops.

Needs only Triton, which ships NVIDIA's assembler. For CI, and for choosing tiles.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bigchem.model.kernels import backward, bias_gradient, sass, tiles
from bigchem.model.kernels.forward import forward
from bigchem.model.kernels.sass import Loop
from bigchem.model.kernels.tiles import Kernel, Tile

FUNCTIONS = {
    "forward": forward,
    "grad_queries": backward.grad_queries,
    "grad_keys": backward.grad_keys,
    "grad_bias": backward.grad_bias,
    "grad_short": backward.grad_short,
}
_INT32 = ("seed", "threshold", "num_heads", "num_rows")
_FP32 = ("BIAS", "TABLE", "LSE", "DELTA", "PARTIAL", "FAR")
_INT32_ARRAYS = ("CU_Q", "CU_K", "WORK", "HASHES", "COLUMNS", "FACTORS")


@dataclass(frozen=True)
class Case:
    """One kernel launch. dtype: fp32, fp16 or bf16. reach 0: no bias (cross-attention)."""

    kernel: Kernel
    tile: Tile
    head_dim: int
    dtype: str
    reach: int
    causal: bool
    dropout: bool


@dataclass(frozen=True)
class Report:
    """The compiler's report on a case.

    registers: per thread; stack: bytes per thread, for spilled registers; shared: bytes per program; mma, wgmma: matrix
    instructions of a warp, of a group of four (on 10.0 tcgen05); async_copies: loads issued ahead of their use; loops:
    the innermost ones, that over whole tiles first.
    """

    registers: int
    stack: int
    shared: int
    mma: int
    wgmma: int
    async_copies: int
    loops: list[Loop]


def cases(arch: int, head_dims: tuple[int, ...] = (64,), dtypes: tuple[str, ...] = ("bf16",)) -> Iterator[Case]:
    """Every kernel with every tile of the table, for encoder, decoder and cross-attention, without and with dropout."""
    for kernel in tiles.KERNELS:
        for head_dim in head_dims:
            for dtype in dtypes:
                distinct = dict.fromkeys(
                    tiles.tile(kernel, n, head_dim, arch, fp32=dtype == "fp32") for n in (16, 64, 512, 2048)
                )
                for tile in distinct:
                    for reach, causal in ((91, False), (113, True), (0, False)):
                        if kernel == "grad_bias" and not reach:
                            continue
                        for dropout in (False, True):
                            yield Case(kernel, tile, head_dim, dtype, reach, causal, dropout)


def compile_case(case: Case, arch: int) -> Report:
    """Compiles a kernel for an architecture (80, 90, ...)."""
    function = FUNCTIONS[case.kernel]
    constants = _constants(case, arch)
    types = [_type(name, case.dtype, constants) for name in function.arg_names]
    aligned = [i for i, kind in enumerate(types) if kind[0] == "*"]
    source = ASTSource(
        fn=function,
        signature=dict(zip(function.arg_names, types, strict=True)),
        constexprs={(function.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": case.tile.num_warps, "num_stages": case.tile.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    ptx = compiled.asm["ptx"]
    usage = _resource_usage(compiled.asm["cubin"])
    return Report(
        registers=usage["REG"],
        stack=usage["STACK"] + usage["LOCAL"],
        shared=compiled.metadata.shared,
        mma=ptx.count("mma.sync"),
        wgmma=ptx.count("wgmma.mma_async") + len(re.findall(r"tcgen05\.mma", ptx)),
        async_copies=ptx.count("cp.async.c"),
        loops=sorted(sass.matrix_loops(sass.disassemble(compiled.asm["cubin"])), key=lambda loop: loop.instructions),
    )


def _constants(case: Case, arch: int) -> dict[str, Any]:
    tile = case.tile
    names = FUNCTIONS[case.kernel].arg_names
    reach = max(1, case.reach)
    near = tile if case.kernel == "grad_bias" else _near(case, arch)
    shape = (reach, near.block_m, near.block_n, case.causal)
    first, count = bias_gradient.slots(*shape)
    everything = {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK": tile.block_m,
        "SEQUENCES": tile.sequences,
        "D": case.head_dim,
        "D_PAD": tiles.padded_head_dim(case.head_dim),
        "REACH": reach,
        "FIRST_SLOT": first,
        "NUM_SLOTS": count,
        "NEAR_BEGIN": first * near.block_n,
        "NEAR_END": (first + count) * near.block_n,
        "PARTIAL_SIZE": bias_gradient.partial_size(*shape, far=False),
        "TABLE_SIZE": 2 * (reach + bias_gradient.MARGIN) + 1 if case.reach else 0,
        "CAUSAL": case.causal,
        "HAS_BIAS": case.reach > 0,
        "DROPOUT": case.dropout,
        "PRECISION": "ieee",
    }
    return {name: value for name, value in everything.items() if name in names}


def _near(case: Case, arch: int) -> Tile:
    return tiles.tile("grad_bias", 64, case.head_dim, arch, fp32=case.dtype == "fp32")


def _type(name: str, dtype: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in _INT32:
        return "i32"
    if name == "keep_scale":
        return "fp32"
    if name in _INT32_ARRAYS:
        return "*i32"
    return "*fp32" if name in _FP32 else f"*{dtype}"


def _resource_usage(cubin: bytes) -> dict[str, int]:
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        output = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", output))
    return {name: int(found[name]) for name in ("REG", "STACK", "LOCAL")}
