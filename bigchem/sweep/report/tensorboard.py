"""The analysis for TensorBoard: metrics and gains as scalars against parameters, runs as hparams."""

from collections.abc import Iterable
from pathlib import Path

from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.report.output_folder import replace_written
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import REGIMES, Run


def write_tensorboard(analysis: Analysis, folder: Path) -> None:
    """Writes event files below folder, replacing earlier ones; UserError if anything else is there.

    together, alone, gain: a scalar TASK/METRIC at step = parameters; the ends of its interval are in REGIME.low and
    REGIME.high, and the gain's slope in TASK/METRIC/slope. runs/NAME: each evaluated model with its hparams.
    """
    with replace_written(folder) as partial:
        for regime in REGIMES:
            cells = [c for c in analysis.cells if c.regime == regime]
            _series(partial / regime, ((f"{c.task}/{c.metric}", c.parameters, c.estimate) for c in cells))
        gains = [(f"{g.task}/{g.metric}", g.parameters, g.estimate) for g in analysis.gains]
        slopes = [
            (f"{t}/{m}/slope", max(analysis.sizes), trend.per_decade) for (t, m), trend in analysis.trends.items()
        ]
        pools = [(f"{p.kind}/{p.of}", size, gain) for p in analysis.pools for size, gain in p.gains.items()]
        _series(partial / "gain", [*gains, *slopes, *pools])
        for number, run in enumerate(analysis.results.runs):
            _hparams(partial / "runs" / f"{number:03d}-{run.name.replace('/', '_')}", run, analysis)


def _series(folder: Path, found: Iterable[tuple[str, int, Estimate | None]]) -> None:
    """Values, and the ends of their intervals as separate series, which TensorBoard draws in one plot."""
    from torch.utils.tensorboard import SummaryWriter

    known = [(tag, size, estimate) for tag, size, estimate in found if estimate is not None]
    for end in ("", "low", "high"):
        values = [(t, s, getattr(e, end or "value")) for t, s, e in known if getattr(e, end or "value") is not None]
        if values:
            with SummaryWriter(str(folder.with_name(folder.name + (f".{end}" if end else "")))) as writer:
                for tag, size, value in values:
                    writer.add_scalar(tag, value, global_step=size)


def _hparams(folder: Path, run: Run, analysis: Analysis) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    scores = [s for s in analysis.results.scores if s.run is run and s.estimate is not None]
    values = {f"{s.task}/{s.metric}": s.estimate.value for s in scores if s.estimate is not None}
    about = {
        "run": run.name,
        "parameters": run.parameters,
        "regime": run.regime,
        "seed": run.seed,
        "preset": run.preset,
        "mixture": ", ".join(f"{task} {share:.3g}" for task, share in run.mixture.items()),
    }
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(about, values):
            writer.file_writer.add_summary(summary)
        for tag, value in values.items():
            writer.add_scalar(tag, value, global_step=run.parameters)
