"""Compiles these kernels ahead of time, as `bigchem.model.kernels.aot` does the attention's."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bigchem.model.kernels.aot import _resource_usage
from bigchem.model.kernels.fused import (
    activation_kernels,
    add_norm,
    add_norm_kernels,
    cross_entropy,
    cross_entropy_kernel,
)
from bigchem.model.kernels.fused.launch import elementwise, whole_rows

FUNCTIONS = {
    "add_norm": add_norm_kernels.forward,
    "add_norm backward": add_norm_kernels.backward,
    "sum_partials": add_norm_kernels.sum_partials,
    "add_dropped": add_norm_kernels.add_dropped,
    "activation": activation_kernels.forward,
    "activation backward": activation_kernels.backward,
    "relu backward": activation_kernels.relu_backward,
    "cross_entropy": cross_entropy_kernel.cross_entropy,
}
_FP32 = ("RSTD", "PARTIAL", "LOSSES", "OBJECTIVE")
_SCALARS = {"eps": "fp32", "scale": "fp32", "z_loss": "fp32", "smoothing": "fp32"}
WIDTHS = (768, 1024, 4096)
"""Of d_model: t5-base, t5-large to 11b, xxl."""
D_FF, VOCABULARY = 2048, 32128


@dataclass(frozen=True)
class Case:
    """One kernel launch. dtype: fp32, fp16 or bf16; width: of its rows; options: of the kernel, as text."""

    kernel: str
    dtype: str
    width: int
    options: str
    constants: dict[str, Any]
    num_warps: int

    def named(self) -> dict[str, int | str]:
        """What a report says of the case."""
        return {n: getattr(self, n) for n in ("kernel", "dtype", "width", "options", "num_warps")}


def cases(dtypes: tuple[str, ...] = ("bf16",), widths: tuple[int, ...] = WIDTHS) -> Iterator[Case]:
    """Each kernel with the options of training, all of them on."""
    for dtype in dtypes:
        for width in widths:
            for kernel, num_warps in (("add_norm", 4), ("add_norm backward", 8)):
                size = whole_rows(width, num_warps)
                drops = {"DROP_UPDATE": True, "DROP_NORMED": True}
                constants = {"WIDTH": width, "BLOCK": size.block, "ROWS": size.rows, **drops}
                yield Case(kernel, dtype, width, "dropout", constants, size.num_warps)
        sums = add_norm.SUMS
        constants = {"WIDTH": widths[0], "BLOCK": sums.block, "ROWS": sums.rows}
        yield Case("sum_partials", dtype, widths[0], "", constants, sums.num_warps)
        size = elementwise(widths[0])
        tile = {"WIDTH": widths[0], "BLOCK": size.block, "ROWS": size.rows}
        yield Case("add_dropped", dtype, widths[0], "dropout", tile, size.num_warps)
        size = elementwise(D_FF)
        tile = {"WIDTH": D_FF, "BLOCK": size.block, "ROWS": size.rows}
        relu = {"B": None, "ACTIVATION": "relu", "DROPOUT": True}
        yield Case("activation", dtype, D_FF, "relu", {**tile, **relu}, size.num_warps)
        yield Case("relu backward", dtype, D_FF, "", tile, size.num_warps)
        for name in ("gelu_new", "silu"):
            for kernel in ("activation", "activation backward"):
                gated = {"ACTIVATION": name, "DROPOUT": True}
                yield Case(kernel, dtype, D_FF, f"gated {name}", {**tile, **gated}, size.num_warps)
        constants = {"VOCABULARY": VOCABULARY, "BLOCK": cross_entropy.BLOCK, "GRADIENT": True}
        yield Case("cross_entropy", dtype, VOCABULARY, "all terms", constants, cross_entropy.NUM_WARPS)


def compile_case(case: Case, arch: int) -> dict[str, int]:
    """registers, stack and shared (see kernels.aot.Report) of a kernel compiled for an architecture (80, 90, ...)."""
    function = FUNCTIONS[case.kernel]
    names = function.arg_names
    types = ["constexpr" if name in case.constants else _type(name, case.dtype) for name in names]
    source = ASTSource(
        fn=function,
        signature=dict(zip(names, types, strict=True)),
        constexprs={(names.index(name),): value for name, value in case.constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types) if kind[0] == "*"},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": case.num_warps})
    usage = _resource_usage(compiled.asm["cubin"])
    return {
        "registers": usage["REG"],
        "stack": usage["STACK"] + usage["LOCAL"],
        "shared": compiled.metadata.shared,
    }


def _type(name: str, dtype: str) -> str:
    if name.islower():
        return _SCALARS.get(name, "i32")
    kinds = {"HASHES": "*i32", "LABELS": "*i64", **dict.fromkeys(_FP32, "*fp32")}
    return kinds.get(name, f"*{dtype}")
