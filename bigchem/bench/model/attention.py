"""Packed attention with T5's bias: errors against float64, then forward and backward time and memory against peers."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from bigchem.base.progress import Progress
from bigchem.bench.common import Deadline, Figure, Report, at_most, machine, pick_device, release
from bigchem.bench.model import ceilings
from bigchem.bench.model.ceilings import CEILINGS
from bigchem.bench.model.mix import Rows, lengths_of_tasks, mixed
from bigchem.bench.model.peers import (
    PEERS,
    Call,
    Case,
    backward,
    exact,
    layout_of,
    ours,
    packed_inputs,
    refusal,
    run,
)
from bigchem.bench.model.pieces import Sizes, pieces
from bigchem.cli import program
from bigchem.model.attention import BACKENDS, KINDS, choose_backends, why_not
from bigchem.model.attention import Setting as AttentionSetting

RAGGED = "real mix"


def checks(kind: str, backend: str, device: torch.device, dtype: torch.dtype, dims: tuple[int, ...]) -> Iterator[Case]:
    """Ragged sequences, some of one token. For our kernels on a GPU also all-short batches and some over 512 tokens,
    which use other tiles; dropout; and heads of these dimensions."""
    few, short, long = (13, 150, 1, 64, 65, 200), (13, 1, 64, 33), (13, 700, 64)

    def case(lengths: tuple[int, ...], dim: int, dropout: float) -> Case:
        keys = lengths[1:] + lengths[:1] if kind == "cross" else lengths
        return Case(np.array([lengths, keys]).T, kind, 2, dim, dropout, device, dtype)

    yield case(few, 64, 0.0)
    if backend == "triton" and device.type == "cuda":
        for lengths in (few, short, long):
            yield from (case(lengths, dim, dropout) for dim in dims for dropout in (0.0, 0.1))


def error(case: Case, backend: str) -> Figure:
    """Largest error relative to the largest value, over output, dq, dk, dv and dbias, against float64."""
    inputs = packed_inputs(case)
    want, got = exact(case, *inputs[:4]), run(case, backend, layout_of(case), *inputs[:4])
    wants, gots = (
        (x.detach().double(), *(g.double() for g in backward(x, inputs[:4], inputs[4].to(x.dtype))))
        for x in (want, got)
    )
    worst = max(float((a.double() - b.double()).abs().max() / b.abs().max()) for a, b in zip(gots, wants, strict=True))
    target = 1e-5 if case.dtype == torch.float32 else 0.02  # bf16 rounds a number by up to 0.4 %
    what = f"heads of {case.dim}, up to {case.lengths.max()} tokens, dropout {case.dropout:g}"
    name = f"{case.kind}, {backend}, {str(case.dtype).removeprefix('torch.')}, {what}: largest error"
    return Figure(name, worst, "relative", target)


Timed = tuple[float, float | None]
"""Median milliseconds of a call, and the peak MiB it allocates (None on a CPU)."""


def timed(sets: dict[str, list[Call]], device: torch.device, limit_s: float) -> dict[str, Timed]:
    """Time and memory of each contestant, taking turns and rotating over their inputs, which together exceed any cache.
    limit_s: per contestant."""
    peaks = {name: peak_mib(calls[0]) if device.type == "cuda" else None for name, calls in sets.items()}
    times: dict[str, list[float]] = {name: [] for name in sets}
    end = time.perf_counter() + limit_s * len(sets)
    for number in range(60):
        if number >= 3 and time.perf_counter() > end:
            break
        for name, calls in sets.items():
            times[name].append(milliseconds(calls[number % len(calls)], device))
    return {name: (float(np.median(found)), peaks[name]) for name, found in times.items()}


def peak_mib(call: Call) -> float:
    """Peak memory that a call allocates."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def milliseconds(call: Call, device: torch.device) -> float:
    """Milliseconds of one call; on CUDA between two events."""
    if device.type == "cpu":
        begun = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begun)
    begin, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(20_000_000)  # about ten milliseconds, so that launch time does not count
    begin.record()
    call()
    stop.record()
    stop.synchronize()
    return float(begin.elapsed_time(stop))


def contestants(case: Case, report: Report, progress: Progress) -> dict[str, Callable[[], Call]]:
    """Our backends that support the case, the ceilings, and peers that compute the same."""
    found: dict[str, Callable[[], Call]] = {}
    for name in BACKENDS:
        if name != "eager" and why_not(name, case.kind, case.setting) is None:
            found[f"ours, {name}"] = partial(ours, case, name)
    for name, other in {**CEILINGS, **PEERS}.items():  # FlexAttention last: it compiles
        reason = refusal(name, case) if name in PEERS else ceilings.refusal(name, case)
        if reason is None:
            found[name] = partial(other, case)
        else:
            report.skip(name, reason, progress)
    return found


def compare(label: str, case: Case, limit_s: float, deadline: Deadline, report: Report, progress: Progress) -> None:
    """Adds each contestant's line for a case, and the figures with targets. limit_s: for timing each."""
    sets: dict[str, list[Call]] = {}
    for name, prepare in contestants(case, report, progress).items():
        try:
            with at_most(min(60, deadline.left)):
                prepared = [prepare() for _ in range(3)]
                for call in prepared:  # compiles, and fails early
                    call()
            sets[name] = prepared
        except Exception as failed:  # report a failing peer and continue
            report.skip(f"{label}, {case.kind}, dropout {case.dropout:g}: {name}", failed, progress)
    found = timed(sets, case.device, limit_s)
    for name, (ms, peak) in found.items():
        line = {"lengths": label, "kind": case.kind, "dropout": case.dropout, "who": name, "ms": ms}
        report.rows.append({**line, "TFLOP/s": case.flops / ms / 1e9, "peak MiB": peak})
    report.figures += targets(label, case, {name: pair[0] for name, pair in found.items()})


def targets(label: str, case: Case, found: dict[str, float]) -> Iterator[Figure]:
    """The backend that `auto` chooses against the fastest peer and the fastest ceiling."""
    mine = found.get(f"ours, {choose_backends('auto', case.setting)[case.kind]}")
    peers = {name: ms for name, ms in found.items() if name in PEERS}
    if mine is None or not peers:
        return
    fastest = min(peers, key=lambda name: peers[name])
    name = f"{label}, {case.kind}, dropout {case.dropout:g}"
    target = 2.0 if case.device.type == "cuda" and case.biased else None
    yield Figure(f"{name}: ours / {fastest}", peers[fastest] / mine, "x speed", target, at_least=True)
    if bounds := {name: ms for name, ms in found.items() if name in CEILINGS}:
        lowest = min(bounds, key=lambda bound: bounds[bound])
        limit = 1.3 if case.lengths[:, 0].min() >= 512 else None
        yield Figure(f"{name}: time of ours / {lowest}", mine / bounds[lowest], "x time", limit)


def memory(case: Case) -> Iterator[Figure]:
    """Whether memory is linear in tokens: twice as many sequences; and sequences twice as long, equal tokens."""
    name = next(n for n in BACKENDS if why_not(n, case.kind, case.setting) is None)
    longer = np.full((len(case.lengths) // 2, 2), 2 * case.lengths[0, 0])
    peaks = []
    for lengths in (case.lengths, np.tile(case.lengths, (2, 1)), longer):
        call = ours(replace(case, lengths=lengths), name)
        call()
        peaks.append(peak_mib(call))
    once, twice, long = peaks
    yield Figure(f"{case.kind}, {name}: peak memory, twice the tokens", twice / once, "x", 2.1)
    yield Figure(f"{case.kind}, {name}: peak memory, the same tokens in sequences twice as long", long / once, "x", 1.1)


def ragged(lengths: dict[str, Rows], kind: str, tokens: int) -> Rows:
    """Rows of the real mix with `tokens` queries: sources in the encoder, targets in the decoder."""
    sides = {"encoder_self": [0, 0], "decoder_self": [1, 1], "cross": [1, 0]}[kind]
    rows = mixed(lengths, 8 * tokens, seed=0)[:, sides]
    return rows[: max(1, int(np.searchsorted(rows[:, 0].cumsum(), tokens)))]


def compare_pieces(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, deadline: Deadline, report: Report, progress: Progress
) -> None:
    """Adds one line per piece and implementation."""
    for piece, who, prepare in pieces(sizes, device, dtype):
        try:
            with at_most(min(60, deadline.left)):
                call = prepare()
                call()
            ms, peak = timed({who: [call]}, device, 0.2)[who]
        except Exception as failed:
            report.skip(f"{piece}: {who}", failed, progress)
            continue
        line = {"lengths": f"{sizes.tokens} tokens", "kind": piece, "dropout": None, "who": who, "ms": ms}
        report.rows.append({**line, "TFLOP/s": None, "peak MiB": peak})
        release(device)


def main(
    length: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Time sequences of this length (repeatable); the default depends on the device."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=64, help="Query tokens per call; default: 16,384, on a CPU 2,048.")
    ] = None,
    heads: Annotated[int, typer.Option(min=1, help="Number of heads, each of 64 dimensions.")] = 12,
    data: Annotated[
        Path | None, typer.Option(help="Data folder for the rows' lengths; default: 256 packaged pairs per task.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Time limit in minutes.")] = 7.0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda if available.")] = None,
    with_pieces: Annotated[
        bool, typer.Option("--pieces/--no-pieces", help="Also time norms, losses and other pieces.")
    ] = True,
    only_check: Annotated[
        bool, typer.Option("--only-check", help="Check errors only, without timing, as for compute-sanitizer.")
    ] = False,
    as_json: program.Json = False,
) -> None:
    """Check attention against float64, then time it against peers at equal tokens: bf16 on CUDA, fp32 on a CPU.

    Example: bigchem bench attention --data data/full
    """
    deadline, progress, where = Deadline(60 * minutes), Progress(), pick_device(device)
    cuda = where.type == "cuda"
    dtype, tokens = torch.bfloat16 if cuda else torch.float32, tokens or (16384 if cuda else 2048)
    report = Report({**machine(where), "queries": str(tokens), "heads": f"{heads} x 64", "dtype": str(dtype)})
    mix = lengths_of_tasks(data)
    dims = (16, 64, 128) if only_check else (64,)  # compiling more takes a minute or two
    for kind in KINDS:
        for precision in dict.fromkeys((torch.float32, dtype)):
            for name in BACKENDS:
                reason = why_not(name, kind, AttentionSetting(where, precision, 64))
                if reason is None:
                    report.figures += [error(case, name) for case in checks(kind, name, where, precision, dims)]
                else:
                    report.skip(f"ours, {name}, {kind}", reason, progress)
    if only_check:
        report.show(as_json)
        raise typer.Exit(any(figure.holds is False for figure in report.figures))
    equal = length or ((512, 2048, 64, 128) if cuda else (64, 512))  # the last may run out of time
    shapes: list[tuple[str, int | None]] = [(RAGGED, None), *((f"{n} each", n) for n in equal)]
    cases = [(label, n, kind, p) for label, n in shapes for kind in KINDS for p in (0.0, 0.1)]
    if cuda:
        report.figures += memory(Case(np.full((32, 2), 512), "encoder_self", heads, 64, 0.0, where, dtype))
    else:
        report.skip("memory, the ceiling, CUDA events", "no GPU here: figures below are for the CPU only", progress)
    for label, n, kind, dropout in cases:
        if deadline.left < 60 * minutes / 6:
            report.skip(f"{label}, {kind}, dropout {dropout:g}", "no time left", progress)
            continue
        lengths = ragged(mix, kind, tokens) if n is None else np.full((max(1, tokens // n), 2), n)
        case = Case(lengths, kind, heads, 64, dropout, where, dtype)
        compare(label, case, 0.3, deadline, report, progress)
        release(where)
    if with_pieces:
        compare_pieces(Sizes(tokens, 64 * heads, 256 * heads, 32128), where, dtype, deadline, report, progress)
    report.show(as_json)
