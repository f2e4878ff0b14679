"""Instructions that a compiled kernel executes in each pass of its loops, by kind, from NVIDIA's disassembler.

A kernel's time over long sequences is its loops' time, and an instruction count is exact where a timing is noise. Pure
but for `disassemble`.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

KINDS = {
    "matrix": ("HGMMA", "HMMA", "UTCHMMA"),
    "exp2": ("MUFU",),
    "float": ("FADD", "FMUL", "FFMA", "FMNMX", "FSEL", "FSETP", "FSET", "F2F", "F2FP", "HADD2", "HFMA2", "HMUL2"),
    "integer": ("IMAD", "IADD", "LOP", "SHF", "PRMT", "VIMNMX", "IMNMX", "ISETP", "SEL", "LEA", "IABS", "PLOP", "I2F"),
    "load": ("LDG", "LDGSTS", "UTMALDG", "UBLKCP"),
    "store": ("STG", "RED", "ATOM", "UTMASTG"),
    "shared": ("LDS", "LDSM", "STS", "STSM"),
    "shuffle": ("SHFL",),
    "barrier": ("BAR", "WARPSYNC", "SYNCS", "WARPGROUP", "DEPBAR", "LDGDEPBAR"),
}
"""Kind -> prefixes of opcodes. Everything else (moves, uniform registers, branches) is `other`."""


@dataclass(frozen=True)
class Loop:
    """One innermost loop: instructions of a pass, in all and by kind."""

    instructions: int
    by_kind: dict[str, int]


def disassemble(cubin: bytes) -> str:
    """The SASS text of a compiled kernel, by the nvdisasm that Triton ships."""
    package = Path(str(find_spec("triton").origin)).parent  # type: ignore[union-attr]
    program = package / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout


def matrix_loops(text: str) -> list[Loop]:
    """The innermost loops that multiply matrices, in the program's order."""
    opcodes, labels = _parse(text)
    spans = [(labels[target], at) for at, (_, target) in enumerate(opcodes) if labels.get(target, at + 1) <= at]
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    loops = []
    for begin, end in sorted(inner):
        counts = Counter(kind(opcode) for opcode, _ in opcodes[begin : end + 1])
        if counts["matrix"]:
            loops.append(Loop(end + 1 - begin, {name: counts[name] for name in (*KINDS, "other") if counts[name]}))
    return loops


def kind(opcode: str) -> str:
    """The kind of an instruction such as FFMA.FTZ."""
    name = opcode.split(".", maxsplit=1)[0]
    exact = next((k for k, prefixes in KINDS.items() if name in prefixes), None)
    return exact or next((k for k, prefixes in KINDS.items() if name.startswith(prefixes)), "other")


def _parse(text: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """[(opcode, label that it branches to or "")], and the number of the instruction after each label."""
    opcodes: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(opcodes)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);", line):
            target = re.search(r"\.L_x_\d+", found[2]) if found[1].startswith("BRA") else None
            opcodes.append((found[1], target[0] if target else ""))
    return opcodes, labels
