"""`bigchem demo`: the whole path on the embedded corpus: data, a sweep on the local executor, one report."""

import shutil
import time
from pathlib import Path

from bigchem.base.installed import resources
from bigchem.base.progress import Progress, tables
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.runs.status import RunStatus
from bigchem.launch.workloads.sweep import SweepRun, submit_sweep
from bigchem.sweep.grid import expand, load_grid
from bigchem.sweep.report import write_report

REPORT_EVERY_S = 8.0


def run_demo(out: Path, *, fresh: bool = False) -> Path:
    """Runs the shipped demo in `out` and returns the report's path. Finished parts are not repeated."""
    begun = time.monotonic()
    progress = Progress()
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    write_report.check_out_dir(out / "report")
    data, runs = out / "data", out / "runs"
    progress.say(f"1/3 data: synthetic corpus -> {data}")
    build(load_recipe(resources.find("recipes", "demo-data", ".toml")), data, progress)
    grid = load_grid("demo-sweep", (f"base_set.data.path={data}", f"base_set.runs={runs}"))
    configs = expand(grid)
    progress.say(f"2/3 sweep: {len(configs)} runs, one after the other, 2 processes each under ZeRO-2 -> {runs}")
    done: set[str] = set()
    reported = ("", 0.0)

    def report(row: RunStatus) -> None:
        if row.state == "finished":
            done.add(row.run)
        nonlocal reported
        if row.state == reported[0] and time.monotonic() - reported[1] < REPORT_EVERY_S:
            return
        reported = (row.state, time.monotonic())
        loss = "" if row.loss is None else f"  loss {row.loss:.3f}"
        progress.say(
            f"  [{len(done)}/{len(configs)}] {time.monotonic() - begun:4.0f} s  {row.run:<22} {row.state:<9} "
            f"{row.step}/{row.steps}{loss}"
        )

    profile = load_profile("local")
    submit_sweep([SweepRun(config, profile) for config in configs], "demo", report)
    progress.say("3/3 report")
    analysis = write_report.study([runs], grid.metrics)
    page = write_report.write(analysis, out / "report", title="bigchem demo: gain of sharing by model size")
    tables().print(write_report.terminal_table(analysis))
    print(f"report: {page.resolve()}  ({time.monotonic() - begun:.0f} s)")
    return page
