"""`bigchem demo`: the whole path on the embedded corpus: data, a sweep on the local executor, one report."""

import os
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

REPORT_EVERY_S = 10.0
AT_A_TIME = 8
"""Runs at a time, at most: each needs a core and half a gigabyte."""


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
    at_a_time = min(AT_A_TIME, len(os.sched_getaffinity(0)))
    progress.say(f"2/3 sweep: {len(configs)} runs, {at_a_time} at a time, one core each -> {runs}")
    done: set[str] = set()
    said = 0.0

    def report(row: RunStatus) -> None:
        if row.state == "finished":
            done.add(row.run)
        nonlocal said
        if row.active and time.monotonic() - said < REPORT_EVERY_S:
            return
        said = time.monotonic()
        loss = "" if row.loss is None else f"  loss {row.loss:.3f}"
        progress.say(
            f"  [{len(done)}/{len(configs)}] {time.monotonic() - begun:4.0f} s  {row.run:<22} {row.state:<9} "
            f"{row.step}/{row.steps}{loss}"
        )

    one_core = {"tasks_per_node": 1, "max_concurrent": at_a_time, "env.OMP_NUM_THREADS": "1"}
    profile = load_profile("local", changes=one_core)
    submit_sweep([SweepRun(config, profile) for config in configs], "demo", report)
    progress.say("3/3 report")
    analysis = write_report.study([runs], grid.metrics)
    page = write_report.write(analysis, out / "report", title="bigchem demo: gain of sharing by model size")
    print(analysis.claim)
    tables().print(write_report.terminal_table(analysis))
    print(f"report: {page.resolve()}  ({time.monotonic() - begun:.0f} s)")
    return page
