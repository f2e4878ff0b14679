"""A training step of the packed T5 against transformers' T5: same weights, same rows, equal real tokens."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install
from bigchem.base.progress import Progress
from bigchem.bench.common import Deadline, Figure, Report, at_most, clock, machine, peak_flops, pick_device, release
from bigchem.bench.model.contestants import Contestant, Ours, Setting, Theirs, examples, reference
from bigchem.bench.model.mix import LONGEST, Rows, grouped, lengths_of_tasks, mixed, packed, padded_tokens
from bigchem.cli import program
from bigchem.model import flops
from bigchem.model.flops import training_flops
from bigchem.model.presets import num_parameters, shape

OURS, GROUPED, FIXED = "ours, packed", "transformers, grouped by length", f"transformers, padded to {LONGEST}"
NAMES = (OURS, GROUPED, FIXED)
POOL = 50
"""Micro-batches whose rows the peer sorts together: the megabatch of transformers' group_by_length."""


@dataclass(frozen=True)
class Options:
    """Command-line options that hold for every comparison."""

    attention: str
    backend: str
    compiled: bool
    optimizer: bool
    budget: int
    turns: int
    progress: Progress
    clock: Callable[[], float] = clock


@dataclass
class Turn:
    """One optimizer step. micro: the rows of each micro-batch; part: their share of the step's tokens."""

    micro: list[Rows]
    tokens: int
    padded: int
    part: float = 1.0


def turns_of(pool: Rows, budget: int, turns: int, per_turn: int) -> dict[str, list[Turn]]:
    """What each contestant computes per turn: the rows of a few of the peer's micro-batches, evenly spaced among all of
    the pool. Padded to 512 they would take minutes, so FIXED computes one micro-batch of them."""
    batches = grouped(pool, budget)
    chosen = [batches[int((i + 0.5) * len(batches) / (turns * per_turn))] for i in range(turns * per_turn)]
    found: dict[str, list[Turn]] = {name: [] for name in NAMES}
    for number in range(turns):
        theirs = chosen[number::turns]
        rows = np.concatenate(theirs)
        tokens = int(rows.sum())
        few = np.random.default_rng(number).permutation(rows)[: max(1, budget // (2 * LONGEST))]
        found[OURS].append(Turn(packed(rows, budget, number), tokens, tokens))
        found[GROUPED].append(Turn(theirs, tokens, sum(map(padded_tokens, theirs))))
        part = len(few) / len(rows)
        found[FIXED].append(Turn([few], tokens, 2 * LONGEST * len(rows), part))
    return found


@dataclass
class Entry:
    """A contestant and its measurements. own_bytes: weights and optimizer."""

    name: str
    contestant: Contestant
    turns: list[Turn]
    optimizer: torch.optim.Optimizer | None
    own_bytes: int = 0
    peak_bytes: int = 0
    seconds: list[float] = field(default_factory=list)

    def take(self, number: int, vocab_size: int, clock: Callable[[], float]) -> float:
        """Seconds of forward and backward of a turn's micro-batches plus an optimizer step, without making the
        batches."""
        turn = self.turns[number]
        batches = [self.contestant.batch(examples(rows, vocab_size)) for rows in turn.micro]
        allocated = _reset_peak()
        begun = clock()
        for batch in batches:
            (self.contestant.loss(batch) / len(batches)).backward()
        computed = clock()
        if self.optimizer is not None:
            self.optimizer.step()
        ended = clock()
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() - allocated + self.own_bytes
            self.peak_bytes = max(self.peak_bytes, peak)
        self.contestant.model.zero_grad(set_to_none=True)
        return (computed - begun) / turn.part + ended - computed


def _reset_peak() -> int:
    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def warmed_up(
    name: str, make: Callable[[], Contestant], turns: list[Turn], setting: Setting, options: Options
) -> Entry:
    """A contestant after its first turn: kernels are chosen or compiled, and the optimizer has its state."""
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    contestant = make()
    parameters = contestant.model.parameters()
    entry = Entry(
        name, contestant, turns, torch.optim.AdamW(parameters, lr=1e-4, fused=True) if options.optimizer else None
    )
    entry.take(0, setting.shape.vocab_size, options.clock)
    if torch.cuda.is_available():
        entry.own_bytes = torch.cuda.memory_allocated() - before
    return entry


def enter(
    setting: Setting, turns: dict[str, list[Turn]], options: Options, deadline: Deadline, report: Report
) -> Iterator[Entry]:
    """The contestants that run, warmed up."""
    weights = reference(setting, options.attention).state_dict()
    ours = partial(Ours, setting, weights, options.backend)
    theirs = partial(Theirs, setting, weights, options.attention)
    makers: list[tuple[str, str, Callable[[], Contestant]]] = [
        (OURS, "", partial(ours, compiled=False)),
        (GROUPED, "", partial(theirs, compiled=False, fixed=None)),
        (FIXED, "", partial(theirs, compiled=False, fixed=LONGEST)),
    ]
    if options.compiled:
        makers.append((OURS, ", compiled", partial(ours, compiled=True)))
        makers.append((GROUPED, ", compiled", partial(theirs, compiled=True, fixed=None)))
    for left, (name, suffix, make) in zip(range(len(makers), 0, -1), makers, strict=True):
        try:
            with at_most(max(90.0 if name + suffix == OURS else 20.0, deadline.share(left + 0.5).left)):
                entry = warmed_up(name + suffix, make, turns[name], setting, options)
        except Exception as failed:  # report a failing peer and continue
            report.skip(f"{setting.name}: {name}{suffix}", failed, options.progress)
            release(setting.device)
            continue
        yield entry


def race(setting: Setting, pool: Rows, options: Options, deadline: Deadline, peak: float, report: Report) -> None:
    """Runs the contestants in turn until all turns are done or time is up; adds lines and figures to the report."""
    turns = turns_of(pool, options.budget, options.turns, per_turn=2)
    vocab_size = setting.shape.vocab_size
    entries = list(enter(setting, turns, options, deadline, report))
    for number in range(options.turns):
        if number and deadline.left == 0:
            break
        for entry in list(entries):
            try:
                with at_most(60):
                    entry.seconds.append(entry.take(number, vocab_size, options.clock))
            except Exception as failed:
                report.skip(f"{setting.name}: {entry.name}", failed, options.progress)
                entries.remove(entry)
                release(setting.device)
    report.rows += [line(setting, entry, peak) for entry in entries]
    report.figures += targets(setting, entries)


def rated_flops(setting: Setting) -> float | None:
    """The device's data-sheet peak, as in a run's metrics; None if unknown."""
    if setting.device.type == "cpu":
        return None
    precision = "bf16" if setting.dtype == torch.bfloat16 else "fp32"
    return flops.peak_flops(torch.cuda.get_device_name(setting.device), precision)


def line(setting: Setting, entry: Entry, peak: float) -> dict[str, Any]:
    """A contestant's line of the wide table; medians over turns."""
    turns = entry.turns[: len(entry.seconds)]
    rates = [turn.tokens / seconds for turn, seconds in zip(turns, entry.seconds, strict=True)]
    speed = achieved(setting, entry)
    padding = 1 - sum(turn.tokens for turn in entry.turns) / sum(turn.padded for turn in entry.turns)
    return {
        "model": setting.preset,
        "parameters": f"{num_parameters(setting.shape) / 1e6:.1f} M",
        "dropout": setting.dropout,
        "who": entry.name,
        "real tokens/s": float(np.median(rates)),
        "padding %": 100 * padding,
        "TFLOP/s": speed / 1e12,
        "% of product": 100 * speed / peak,
        "MFU %": 100 * speed / rated if (rated := rated_flops(setting)) else None,
        "peak GiB": entry.peak_bytes / 2**30 if entry.peak_bytes else None,
        "turns": len(entry.seconds),
    }


def achieved(setting: Setting, entry: Entry) -> float:
    """FLOP/s without padding and recomputation; median over turns."""
    rates = []
    for turn, seconds in zip(entry.turns, entry.seconds, strict=False):
        rows = np.concatenate(turn.micro)
        rates.append(training_flops(setting.shape, rows[:, 0], rows[:, 1]) / turn.part / seconds)
    return float(np.median(rates))


def targets(setting: Setting, entries: list[Entry]) -> Iterator[Figure]:
    """Figures with the project's targets: tokens/s relative to each peer in the same turns, MFU, memory."""
    fastest = [
        min((e for e in entries if e.name.startswith(n)), key=lambda e: sum(e.seconds), default=None) for n in NAMES
    ]
    ours, *peers = fastest
    if ours is None:
        return
    cuda = setting.device.type == "cuda"
    for peer, target in zip(peers, (3.0, None) if cuda else (1.5, 5.0), strict=True):
        if peer is not None:
            ratio = float(np.median(np.divide(peer.seconds, ours.seconds)))
            yield Figure(f"{setting.name}: {ours.name} / {peer.name}", ratio, "x real tokens/s", target, at_least=True)
    if cuda:
        target = {"t5-base": 40.0, "t5-large": 50.0}.get(setting.preset)
        if rated := rated_flops(setting):
            yield Figure(f"{setting.name}: MFU", 100 * achieved(setting, ours) / rated, "%", target, at_least=True)
        if peers[0] is not None:
            share = ours.peak_bytes / peers[0].peak_bytes
            yield Figure(f"{setting.name}: peak memory / {peers[0].name}", share, "x", 0.5)


def parity(setting: Setting, options: Options) -> Iterator[Figure]:
    """Error of loss and gradients against transformers in fp32, on the same weights and eight rows of the mix; for bf16
    also the error of both in bf16. Dropout is off and the feed-forward is v1.1's: at ReLU's kink a rounding error
    switches a unit and the gradient jumps (transformers' own fp32 is then up to 5e-3 from its float64)."""
    lengths = np.array([[13, 7], [150, 3], [1, 18], [40, 140], [200, 60], [33, 31], [7, 1], [90, 65]])
    rows = examples(lengths, setting.shape.vocab_size)
    smooth = replace(setting.shape, gated=True, activation="gelu_new")
    exact = replace(setting, shape=smooth, dropout=0.0, dtype=torch.float32)
    weights = reference(exact, "eager").state_dict()

    def found(kind: Callable[..., Contestant], setting: Setting, *args: Any, **options: Any) -> dict[str, Tensor]:
        contestant = kind(setting, weights, *args, compiled=False, **options)
        loss = contestant.loss(contestant.batch(rows))
        loss.backward()
        grads = {name: p.grad.float() for name, p in contestant.model.named_parameters() if p.grad is not None}
        return {"loss": loss.detach().float(), **grads}

    def error(got: dict[str, Tensor], norm: float) -> float:
        return max(float((got[n] - want[n]).norm(norm) / want[n].norm(norm)) for n in want)

    want = found(Theirs, exact, "eager", fixed=None)
    label = f"{setting.preset}, {setting.shape.vocab_size} rows of vocabulary: largest error of loss and gradients"
    yield Figure(f"{label}, fp32", error(found(Ours, exact, options.backend), torch.inf), "relative", 1e-5)
    if setting.dtype != torch.float32:
        low = replace(exact, dtype=setting.dtype)
        theirs = error(found(Theirs, low, options.attention, fixed=None), 2)
        yield Figure(f"{label}, {setting.dtype} transformers", theirs, "relative L2")
        yield Figure(
            f"{label}, {setting.dtype} ours", error(found(Ours, low, options.backend), 2), "relative L2", theirs
        )


def main(
    preset: Annotated[
        list[str] | None, typer.Option(help="Model preset (repeatable); the default depends on the device.")
    ] = None,
    vocabulary: Annotated[
        list[int] | None, typer.Option(help="Embedding rows (repeatable); default: the preset's.")
    ] = None,
    dropout: Annotated[list[float] | None, typer.Option(help="Dropout rate (repeatable); default: 0 and 0.1.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder for the rows' lengths; default: 256 packaged pairs per task.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=64, help="Tokens per micro-batch; default: 4,096 on a CPU, else 16,384.")
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Timed turns of each contestant.")] = 9,
    minutes: Annotated[float, typer.Option(min=0, help="Time limit in minutes.")] = 7.0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda if available.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Torch's CPU threads; use fewer on a shared machine.")
    ] = None,
    attention: Annotated[str, typer.Option(help="transformers' attention: sdpa or eager.")] = "sdpa",
    backend: Annotated[str, typer.Option(help="bigchem's attention backend.")] = "auto",
    optimizer: Annotated[bool, typer.Option(help="Include AdamW in the step.")] = True,
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time", help="Time the processor instead of the clock, as on a shared machine. CPU only."
        ),
    ] = False,
    as_json: program.Json = False,
) -> None:
    """Time a training step against transformers' on the real mix of the five tasks, at equal real tokens.

    Example: bigchem bench train-step --data data/full
    """
    if attention not in ("sdpa", "eager"):
        raise UserError(f"unknown attention {attention!r}", "--attention", "known: sdpa, eager")
    if not all(0 <= p < 1 for p in dropout or []):
        raise UserError(f"dropout {dropout} is not between 0 and 1", "--dropout")
    if find_spec("transformers") is None:
        raise UserError("transformers is not installed: nothing to compare with", hint=install("transformers"))
    deadline, progress = Deadline(60 * minutes), Progress()
    if threads is not None:
        torch.set_num_threads(threads)
    where = pick_device(device)
    cuda = where.type == "cuda"
    if cuda and processor_time:
        raise UserError("a GPU's work takes no processor time", "--processor-time", "drop it, or add --device cpu")
    dtype = torch.bfloat16 if cuda else torch.float32
    options = Options(
        attention,
        backend,
        compiled=False,
        optimizer=optimizer,
        budget=tokens or (16384 if cuda else 4096),
        turns=turns,
        progress=progress,
        clock=time.process_time if processor_time else clock,
    )
    pool = mixed(lengths_of_tasks(data), POOL * options.budget, seed=0)
    shapes = [
        (name, shape(name, rows))
        for name in preset or (("t5-base", "t5-large") if cuda else ("sweep-1m", "sweep-16m"))
        for rows in vocabulary or (None,)
    ]
    report = Report({**machine(where), "tokens per micro-batch": str(options.budget)})
    peak = peak_flops(where, dtype)
    report.figures.append(Figure(f"a large matrix product in {dtype}", peak / 1e12, "TFLOP/s"))
    # Compiling takes minutes, so only the first preset is compiled; to compile each, call once per preset.
    settings = [Setting(n, s, p, where, dtype) for n, s in shapes for p in dropout or (0.0, 0.1)]
    for number, setting in enumerate(settings):
        if setting.shape not in [s.shape for s in settings[:number]]:
            report.figures += parity(setting, options)
        weights = [3.0 if cuda and s.preset == settings[0].preset else 1.0 for s in settings[number:]]
        chosen = replace(options, compiled=weights[0] > 1)
        race(setting, pool, chosen, deadline.share(sum(weights) / weights[0]), peak, report)
        release(where)
    report.show(as_json)
