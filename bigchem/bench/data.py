"""Cost of the data path: reading, packing, planning, opening; against Hugging Face datasets on the same rows."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bigchem.base.installed import resources
from bigchem.base.progress import Progress
from bigchem.bench.common import Figure, median_s, print_figures
from bigchem.cli import program
from bigchem.config import DataConfig, ModelConfig
from bigchem.data.order.examples import Flat, Order
from bigchem.data.order.mixture import Mixture
from bigchem.data.order.steps import Steps, deal
from bigchem.data.step_plan import Plan, flops_cost, mixture_of
from bigchem.data.storage.shards import Data
from bigchem.tasks import Task, shipped

MICRO_TOKENS = 16384


def loading(data: Data, steps: int) -> Iterator[Figure]:
    """Real tokens per second in packed micro-batches of 16k tokens, in one process, and with Hugging Face datasets."""
    from bigchem.data.loader import Loader

    mixture = mixture_of(DataConfig(), data)
    config = DataConfig(mixture=mixture, global_tokens=4 * MICRO_TOKENS, micro_tokens=MICRO_TOKENS)
    loader = Loader(data, config, seed=0, rank=0, world_size=1)
    plans, position = [], 0
    for _ in range(steps // 4):
        plans.append(loader.plan.steps.at(position))
        position = plans[-1].stop

    def ours() -> None:
        at = 0
        for _ in plans:
            step = loader.plan.steps.at(at)
            loader.load(step)
            at = step.stop

    ours()  # pages in
    tokens = sum(plan.tokens for plan in plans)
    rates, peers = [], []
    for _ in range(3):  # in turn: the machine's speed varies over minutes
        rates.append(tokens / median_s(ours, 3))
        batches = peer(data, [len(plan.rows) for plan in plans])
        next(batches)  # opening the files is not counted
        begun = time.perf_counter()
        peers.append(sum(islice(batches, max(2, len(plans) // 20))) / (time.perf_counter() - begun))
    ratio, rate, theirs = (float(np.median(found)) for found in (np.divide(rates, peers), rates, peers))
    yield Figure("packed 16k micro-batches, ordering and dealing included", rate / 1e6, "M tokens/s", 5, True)
    yield Figure("datasets streaming + tokenise + pad, same rows", theirs / 1e6, "M tokens/s")
    yield Figure("ratio", ratio, "x", 10, True)


def peer(data: Data, sizes: list[int]) -> Iterator[int]:
    """Real tokens per batch, batches of these numbers of examples: datasets' streaming, transformers' tokenizer (on all
    cores) and padding collator. Rows come in file order, which spares the peer a shuffle buffer."""
    from datasets import interleave_datasets, load_dataset
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq

    tokenizer = AutoTokenizer.from_pretrained(data.tokenizer_dir)
    streams = []
    for task in data.tasks.scored.only(data.index.rows("train")).values():
        files = [f"{data.path}/{shard.path}" for shard in data.split("train", task.name).shards]
        stream = load_dataset("arrow", data_files=files, split="train", streaming=True)

        def tokenise(batch: dict[str, list[str]], task: Task) -> dict[str, Any]:
            sources = tokenizer([task.prompted(source) for source in batch["source"]], truncation=True, max_length=512)
            labels = tokenizer(batch["target"], truncation=True, max_length=512)
            return {"input_ids": sources["input_ids"], "labels": labels["input_ids"]}

        texts = stream.select_columns(["source", "target"]).repeat(None)  # endless
        streams.append(texts.map(partial(tokenise, task=task), batched=True, remove_columns=["source", "target"]))
    examples = iter(interleave_datasets(streams))
    collate = DataCollatorForSeq2Seq(tokenizer, padding="longest")
    for size in sizes:
        batch = list(islice(examples, size))
        collate([{**e, "attention_mask": [1] * len(e["input_ids"])} for e in batch])
        yield sum(len(e["input_ids"]) + len(e["labels"]) for e in batch)


def packing(data: Data) -> Iterator[Figure]:
    """Fill and balance of micro-batches on 64 ranks; cost is t5-base's FLOPs."""
    fill, imbalance = worst_packing(data, 64, MICRO_TOKENS)
    yield Figure("fill of the token budget, 64 ranks, worst of 20 steps", 100 * fill, "%", 99, True)
    yield Figure("cost of the most expensive rank over the mean, worst of 20 steps", 100 * imbalance, "%", 2)
    fill, imbalance = worst_packing(data, 64, 4096)
    yield Figure("  fill with micro-batches of 4,096 tokens", 100 * fill, "%")
    yield Figure("  cost of the most expensive rank with these", 100 * imbalance, "%")


def worst_packing(data: Data, ranks: int, micro_tokens: int) -> tuple[float, float]:
    """(fill, cost of the most expensive rank over the mean - 1), the worst of 20 steps."""
    mixture = mixture_of(DataConfig(), data)
    config = DataConfig(mixture=mixture, global_tokens=ranks * micro_tokens, micro_tokens=micro_tokens)
    cost = flops_cost(ModelConfig(preset="t5-base"), 32128)
    plan = Plan(data, config, 0, cost)
    fills, imbalances, position = [], [], 0
    for _ in range(20):
        step = plan.steps.at(position)
        dealt = plan.deal(step, ranks)
        costs = cost(step.lengths)
        by_rank = [sum(int(costs[chosen].sum()) for chosen in dealt.share(rank)) for rank in range(ranks)]
        fills.append(step.tokens / (ranks * dealt.grad_accum_steps * micro_tokens))
        imbalances.append(max(by_rank) * ranks / sum(by_rank) - 1)
        position = step.stop
    return min(fills), max(imbalances)


def simulated(rows: int, global_tokens: int) -> Steps:
    """Steps over an index of two tasks with `rows` rows each; lengths are functions of the row number."""
    order = Order({t: Flat(0, t, rows) for t in (0, 1)}, Mixture({0: 1.0, 1: 2.0}, {0: rows, 1: rows}))
    lengths = {t: lambda n, epochs: np.stack([20 + n % 181, 10 + n % 97], axis=1) for t in (0, 1)}
    return Steps(order, lengths, global_tokens)


def planning() -> Iterator[Figure]:
    """Seeking in an index of 10^9 rows, and dealing a step of 4 M tokens to 1,024 ranks."""
    steps, near = simulated(10**9, 1 << 22), simulated(10**9, MICRO_TOKENS)
    far = np.random.default_rng(0).integers(0, 10**12, 200).tolist()
    near.at(0)
    seeks = [median_s(partial(near.at, position), 1) for position in far]
    yield Figure("seek to any position of 10^9 rows, slowest of 200", 1e3 * max(seeks), "ms", 50)
    step = steps.at(10**9)
    tokens = step.lengths.sum(axis=1)
    share = partial(deal, tokens, 1024, 4096, 1 << 22, cost=tokens)
    yield Figure("plan a 4 M-token step: choose examples", 1e3 * median_s(partial(steps.at, 10**9), 7), "ms", 200)
    yield Figure("  and deal it to 1,024 ranks", 1e3 * median_s(share, 7), "ms", 200)
    whole = median_s(lambda: (steps.at(10**9), share().share(511)), 7)
    yield Figure("  both, as each rank does", 1e3 * whole, "ms", 200)
    dealt = share()
    yield Figure("  a rank's own share of the deal", 1e3 * median_s(partial(dealt.share, 511), 7), "ms", 20)


def proportions() -> Figure:
    """Largest deviation of any of 10^6 prefixes from its quota, in examples: seven tasks in uneven ratios."""
    weights = dict(enumerate((1.0, 2.5, 0.3, 7.1, 0.01, 3.0, 1.7)))
    mixture = Mixture(weights, dict.fromkeys(weights, 10**6))
    slots, _ = mixture.draws(0, 10**6)
    due = np.arange(1, 10**6 + 1)
    worst = max(
        float(np.abs(np.cumsum(slots == k) - due * mixture.shares[t]).max()) for k, t in enumerate(mixture.shares)
    )
    return Figure("largest deviation of 10^6 prefixes from their quota", worst, "examples", 1)


def opening(rows: int) -> Iterator[Figure]:
    """Time and resident memory of opening an index of `rows` rows, in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), rows)
        command = [sys.executable, "-m", "bigchem", "bench", "data", "--open", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    measured = json.loads(done.stdout)
    yield Figure(f"open an index of {rows / 1e6:.0f} M rows and plan a step", measured["seconds"], "s", 1)
    yield Figure("  resident memory of the whole process", measured["resident_mb"], "MB", 300)


def write_index(folder: Path, rows: int) -> None:
    """Writes a data folder of one task, without shards: only what opening and planning read."""
    from bigchem.data.storage.columns import write_lengths
    from bigchem.data.storage.index import Index, Shard, other_files

    rng = np.random.default_rng(0)
    task = next(iter(shipped().scored))
    write_lengths(folder, "train", task, rng.integers(5, 530, (rows, 2), dtype=np.uint16))
    listed = [Shard(f"train/{task}-{i:05d}.arrow", 50_000, 1, "0" * 64) for i in range(rows // 50_000)]
    index = Index("0" * 64, {"train": {task: listed}}, files=other_files(folder))
    (folder / "index.json").write_text(index.to_json())


def open_index(folder: Path) -> dict[str, float]:
    """The measurement of `opening`."""
    begun = time.perf_counter()
    plan = Plan(Data(folder), DataConfig(), 0)
    plan.steps.at(10**7)
    seconds = time.perf_counter() - begun
    # Not getrusage's ru_maxrss, which a process inherits from its parent.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "resident_mb": int(peak.split()[1]) / 1024}


def main(
    data: Annotated[Path | None, typer.Option(help="Data folder; default: the embedded corpus, freshly built.")] = None,
    steps: Annotated[int, typer.Option(min=20, help="Micro-batches to read.")] = 400,
    rows: Annotated[int, typer.Option(min=50_000, help="Rows of the large index.")] = 33_000_000,
    as_json: program.Json = False,
    open_: Annotated[Path | None, typer.Option("--open", hidden=True)] = None,
) -> None:
    """Measure the data path on this machine: one process, no GPU, about two minutes.

    Example: bigchem bench data --data data/full
    """
    if open_ is not None:
        print(json.dumps(open_index(open_)))
        return
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            from bigchem.data.build.pipeline import build
            from bigchem.data.build.recipe import load_recipe

            data = Path(folder) / "data"
            build(load_recipe(resources.find("recipes", "demo-data", ".toml")), data, progress)
        opened = Data(data)
        figures: list[Figure] = []
        for part in (opening(rows), planning(), iter([proportions()]), packing(opened), loading(opened, steps)):
            for figure in part:
                figures.append(figure)
                progress.say(f"{figure.name}: {figure.value:.4g} {figure.unit}")
    print_figures(figures, as_json)
