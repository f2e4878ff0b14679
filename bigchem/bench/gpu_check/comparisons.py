"""The benchmarks of the model in the order of what matters most, each in the time that its stage has."""

from dataclasses import replace

import numpy as np

from bigchem.bench.common import Deadline, at_most, peak_flops, release
from bigchem.bench.gpu_check.work import Work, end_workers, pool
from bigchem.bench.model import attention as attention_bench
from bigchem.bench.model import tiles as tiles_bench
from bigchem.bench.model.contestants import Setting
from bigchem.bench.model.mix import lengths_of_tasks, mixed
from bigchem.bench.model.peers import Case
from bigchem.bench.model.train_step import POOL, Options, parity, race
from bigchem.model.attention import BACKENDS
from bigchem.model.presets import shape

KIND_AND_DROPOUT = (
    ("encoder_self", 0.1),
    ("cross", 0.1),
    ("decoder_self", 0.1),
    ("encoder_self", 0.0),
    ("cross", 0.0),
    ("decoder_self", 0.0),
)
"""Most important first; FlexAttention, which compiles for seconds, has no dropout."""


def steps(work: Work) -> None:
    """With dropout 0.1 against transformers (sdpa, grouped by length): T5-base, T5-large, and T5-base compiled, which
    has what time they leave."""
    budget, turns = (300, 1) if work.dry_run else (16384, 9)
    options = Options("sdpa", "auto", False, True, budget, turns, work.progress)
    rows = mixed(lengths_of_tasks(None), POOL * budget, seed=0)
    product = peak_flops(work.device, work.dtype, 256 if work.dry_run else None)
    base = "sweep-0.2m" if work.dry_run else "t5-base"
    setting = Setting(base, shape(base), 0.1, work.device, work.dtype)
    large = replace(setting, preset="t5-large", shape=shape("t5-large"))
    try:
        with at_most(work.deadline.left / 5):
            work.report.figures += parity(setting, options)
    except Exception as failed:
        work.skip("equality with transformers", failed)
    work.save()
    few = replace(options, turns=min(turns, 3))
    races = ((setting, options, 3.0), (large, few, 2.0), (setting, replace(few, compiled=True), 1.0))
    for chosen, how, parts in races:
        label = f"{chosen.preset}{', compiled' if how.compiled else ''}"
        if parts < 3 and (work.dry_run or work.deadline.left < 15):
            work.skip(label, "a dry run" if work.dry_run else "no time left")
            continue
        race(chosen, rows, how, work.deadline.share(parts), product, work.report)
        work.save()
        release(work.device)


def attention(work: Work) -> None:
    """Attention of the real mix and of equal lengths against peers and ceilings; memory in the end."""
    tokens, heads, dim = (60, 1, 16) if work.dry_run else (16384, 12, 64)
    mix = lengths_of_tasks(None)
    labels: tuple[int | None, ...] = (None, 8) if work.dry_run else (None, 512, 64, 2048)
    for kind, dropout in KIND_AND_DROPOUT:
        for n in labels:
            label = attention_bench.RAGGED if n is None else f"{n} each"
            if work.deadline.left < 2:
                work.skip(f"{label}, {kind}, dropout {dropout:g}", "no time left")
                continue
            lengths = attention_bench.ragged(mix, kind, tokens) if n is None else np.full((max(1, tokens // n), 2), n)
            case = Case(lengths, kind, heads, dim, dropout, work.device, work.dtype)
            limit = 0.01 if work.dry_run else 0.15
            attention_bench.compare(label, case, limit, work.deadline, work.report, work.progress)
            work.save()
            release(work.device)
    if work.device.type == "cuda" and work.deadline.left > 2:
        case = Case(np.full((32, 2), 512), "encoder_self", heads, dim, 0.0, work.device, work.dtype)
        work.report.figures += attention_bench.memory(case)


def tiles(work: Work) -> None:
    """Faster tiles than the table's, most important lengths first; dropout 0.1."""
    heads, dim, tokens = (1, 16, 3) if work.dry_run else (12, 64, 16384)
    settings = [(n, kind) for kind in ("encoder_self", "decoder_self") for n in (512, 64, 2048)]
    settings = [(3, "encoder_self")] if work.dry_run else settings
    for n, kind in settings:
        case = Case(np.full((max(1, tokens // n), 2), n), kind, heads, dim, 0.1, work.device, work.dtype)
        reason = BACKENDS["triton"].refusal(kind, case.setting)
        if reason is not None or work.deadline.left < 1:
            work.skip(f"{n} each, {kind}", reason or "no time left")
            continue
        if work.device.type == "cuda":
            tiles_bench.compiled(case, pool(work), work.deadline.left / 2)
            end_workers()  # those that still compile would disturb the timing
        deadline = Deadline(10) if work.dry_run else work.deadline  # the interpreter would take minutes
        tiles_bench.search(f"{n} each", case, deadline, work.report, work.progress)
        work.save()
