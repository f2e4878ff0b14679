"""A build's report as tables: rows, sources, repairs, and what was dropped for which held-out set."""

from typing import Any

from rich.table import Table

from bigchem.base.printable import markup
from bigchem.base.progress import tables
from bigchem.chemistry import REPAIRS
from bigchem.data.build.lossy import lossy_table
from bigchem.data.storage.index import SPLITS, Index


def print_report(index: Index) -> None:
    """Prints an index's rows and its report."""
    console = tables()
    sources, lossy = index.report["sources"], lossy_table(index.report.get("lossy", {}))
    for table in (_rows(index), _sources(sources), _noticed(sources), _leaks(index.report["leaked"]), lossy):
        if table.row_count:
            console.print(table)


def _rows(index: Index) -> Table:
    table = _table("rows kept", "task", *SPLITS, "duplicates dropped")
    by_split = {split: index.rows(split) for split in SPLITS}
    for task in dict.fromkeys(task for rows in by_split.values() for task in rows):
        repeats = sum(n for name, n in index.report["repeats"].items() if name.endswith(f"/{task}"))
        table.add_row(task, *(f"{by_split[split].get(task, 0):,}" for split in SPLITS), f"{repeats:,}")
    return table


def _sources(sources: list[dict[str, Any]]) -> Table:
    table = _table("sources", "source", "split", "records", "rejected", "rows")
    for source in sources:
        counts = (source[name] for name in ("records", "rejected", "rows"))
        splits = source.get("splits", {})  # which older builds did not count
        by_split = ", ".join(f"{splits[split]:,} {split}" for split in SPLITS if split in splits)
        split = source["split"] if source["split"] in SPLITS else f"{source['split']}: {by_split}"
        table.add_row(markup(source["source"]), markup(split), *(f"{count:,}" for count in counts))
    return table


def _noticed(sources: list[dict[str, Any]]) -> Table:
    """Per source: repairs, reasons for rejection, rows without InChI, excluded records."""
    table = _table("repaired, rejected or noticed", "source", "split", "what", "count")
    for source in sources:
        noticed = {f"rows: {REPAIRS.get(name, name)}": count for name, count in source.get("repairs", {}).items()}
        noticed |= {f"rejected: {reason}": count for reason, count in source.get("reasons", {}).items()}
        noticed |= {f"rows: split {name}": count for name, count in source.get("split_names", {}).items()}
        if without := source.get("without_inchi"):
            noticed["rows: no InChI; compared by canonical SMILES"] = without
        if left_out := source.get("left_out"):
            noticed["records: excluded by tasks, task_names, split_names or where"] = left_out
        for what, count in noticed.items():
            table.add_row(markup(source["source"]), markup(source["split"]), markup(what), f"{count:,}")
    return table


def _leaks(leaked: dict[str, dict[str, Any]]) -> Table:
    columns = ("rows", "molecules", "rows ignoring stereo", "molecules ignoring stereo")
    title = "training rows with the source or the molecule of a held-out row"
    table = _table(title, "training task", "dropped", "same source", "held out", *columns)
    for task, leaks in leaked.items():
        first = (task, f"{leaks['dropped']:,} of {leaks['rows']:,}", f"{leaks['same_source']:,}")
        for held_out, overlap in leaks["by_held_out"].items() or [("", {})]:
            table.add_row(*first, held_out, *(f"{count:,}" for count in overlap.values()))
            first = ("", "", "")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        is_text = column in ("task", "source", "split", "training task", "held out", "what")
        table.add_column(column, justify="left" if is_text else "right")
    return table
