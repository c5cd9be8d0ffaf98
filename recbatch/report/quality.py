"""The data-quality summary of the last cleaning run, from the tables alone: what came, what was wrong, what changed."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from recbatch.report.reader import WarehouseReader
from recbatch.tables import columns as c
from recbatch.tables.ledger import DONE
from recbatch.tables.schemas import DATA_QUALITY, RUNS

_LAST_DAYS = 7
_OUTCOMES = ("read", "accepted", "exact_duplicate", "key_duplicate", "rejected", "evicted")


@dataclass
class Quality:
    """One run of `clean`: row counts of the log, and its figures summed over the run's batches."""

    run_id: str
    rows: dict[str, int]
    days: dict[dt.date, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    missing: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    distinct: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    times: dict[str, float] = field(default_factory=dict)


def print_quality(console: Console, warehouse: str) -> None:
    """Print the last run of `clean` that took in events, beside the one before it; nothing where there is none."""
    reader = WarehouseReader(warehouse)
    if not reader.exists(RUNS.name) or not reader.exists(DATA_QUALITY.name):
        return
    runs = [row for row in reader.rows(RUNS.name) if row[c.STAGE] == "clean" and row[c.STATUS] == DONE]
    runs = [
        row for row in sorted(runs, key=lambda row: row[c.FINISHED_AT]) if dict(row[c.ROW_COUNTS]).get("events:read")
    ]
    if not runs:
        return
    figures = reader.rows(DATA_QUALITY.name)
    latest = quality_of(runs[-1], figures)
    before = quality_of(runs[-2], figures) if len(runs) > 1 else None
    console.print(_rows(latest, before))
    console.print(_columns(latest, before))
    console.print(_days(latest))
    if "latest" in latest.times:
        console.print(_freshness(latest, before), highlight=False)


def quality_of(run: Mapping[str, Any], figures: list[dict[str, Any]]) -> Quality:
    """Gather the figures of one row of `runs` from all rows of `data_quality`."""
    counts = dict(run[c.ROW_COUNTS])
    rows = {name.removeprefix("events:"): n for name, n in counts.items() if name.startswith("events:")}
    found = Quality(run[c.RUN_ID], rows)
    for row in figures:
        if row[c.RUN_ID] != found.run_id:
            continue
        metric, subject, value = row[c.METRIC], row[c.SUBJECT], row[c.VALUE]
        if metric == "events":
            found.days[row[c.EVENT_DATE]][subject] += int(value)
        elif metric == "missing":
            found.missing[subject] += int(value)
        elif metric == "distinct":
            found.distinct[subject] = max(found.distinct[subject], int(value))
        else:
            bound = min if metric == "earliest" else max
            found.times[metric] = bound(found.times.get(metric, value), value)
    return found


def _rows(latest: Quality, before: Quality | None) -> Table:
    table = Table(title=f"Rows of the log in run {latest.run_id}", box=box.SIMPLE, title_justify="left")
    for name in ("rows", "number", "share", "share in the run before"):
        table.add_column(name, justify="left" if name == "rows" else "right")
    reasons = sorted((name for name in latest.rows if name.startswith("reason:")), key=lambda name: -latest.rows[name])
    for name in [*_OUTCOMES, *reasons]:
        if name in latest.rows:
            label = name.replace("reason:", "  rejected for ")
            table.add_row(label, f"{latest.rows[name]:,}", _share(latest, name), _share(before, name))
    return table


def _share(quality: Quality | None, name: str) -> str:
    if quality is None or not quality.rows.get("read"):
        return ""
    return f"{quality.rows.get(name, 0) / quality.rows['read']:.2%}"


def _columns(latest: Quality, before: Quality | None) -> Table:
    table = Table(title="Columns of the accepted rows", box=box.SIMPLE, title_justify="left")
    for name in ("column", "missing", "missing in the run before", "distinct, about"):
        table.add_column(name, justify="left" if name == "column" else "right")
    for name in sorted({*latest.missing, *latest.distinct}):
        distinct = f"{latest.distinct[name]:,}" if name in latest.distinct else ""
        table.add_row(name, _missing(latest, name), _missing(before, name), distinct)
    return table


def _missing(quality: Quality | None, name: str) -> str:
    if quality is None or not quality.rows.get("accepted"):
        return ""
    return f"{quality.missing.get(name, 0) / quality.rows['accepted']:.2%}"


def _days(latest: Quality) -> Table:
    kinds = sorted({kind for day in latest.days.values() for kind in day})
    table = Table(title="Events a day", box=box.SIMPLE, title_justify="left")
    table.add_column("day")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for day in sorted(latest.days)[-_LAST_DAYS:]:
        table.add_row(f"{day:%Y-%m-%d}", *[f"{latest.days[day].get(kind, 0):,}" for kind in kinds])
    return table


def _freshness(latest: Quality, before: Quality | None) -> str:
    first, last = (dt.datetime.fromtimestamp(latest.times[name], dt.UTC) for name in ("earliest", "latest"))
    text = f"Events from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if before is not None and "latest" in before.times:
        hours = (latest.times["latest"] - before.times["latest"]) / 3600
        text += f"; the latest is {hours:+,.1f} hours from that of the run before"
    return text
