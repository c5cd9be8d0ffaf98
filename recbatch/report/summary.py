"""The screen at the end of a run: what went in and out, how good it is, how fast it was, where it lies."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from recbatch.report.reader import WarehouseReader
from recbatch.report.user import show_user, some_user
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import last_runs
from recbatch.transforms.parameters import DRIFT, DRIFT_SCALE

_METRICS = ("ndcg@10", "recall@10", "hit_rate@10", "precision@10", "map@10", "mrr@10", "auc", "coverage@10")
_WHOLE = "all"
# Beyond what a week or a promotion does to prices and quantities: a change of unit, currency or source.
_LARGE_DRIFT, _LARGE_RATIO = 0.25, 1.25


def print_summary(console: Console, warehouse: str) -> None:
    """Print the last run of every stage, the last evaluation, the last release and one user, from the tables alone."""
    reader = WarehouseReader(warehouse)
    runs = last_runs(_plain(reader.rows(schemas.RUNS.name)))
    console.print(_stages(runs))
    if reader.exists(schemas.EVALUATIONS.name):
        console.print(*_metrics(reader))
    console.print(_release(reader, runs))
    show_user(console, reader, some_user(reader), 8)


def print_releases(console: Console, warehouse: str) -> None:
    """Print every release, the latest first."""
    rows = WarehouseReader(warehouse).rows(schemas.RELEASES.name)
    table = Table(title=f"Releases in {warehouse}", box=box.SIMPLE, title_justify="left")
    for name in ("release", "published", "as of", "model", "gates", "table versions"):
        table.add_column(name)
    for row in sorted(rows, key=lambda row: row[c.PUBLISHED_AT], reverse=True):
        gates = "\n".join(f"{gate[c.GATE]} {gate[c.VALUE]:.3f} (>= {gate[c.LIMIT]:.2f})" for gate in row[c.GATES])
        versions = "\n".join(f"{name}@{version}" for name, version in sorted(dict(row[c.TABLE_VERSIONS]).items()))
        published, as_of = f"{row[c.PUBLISHED_AT]:%Y-%m-%d %H:%M}", f"{row[c.AS_OF]:%Y-%m-%d %H:%M}"
        table.add_row(row[c.RELEASE_ID], published, as_of, row[c.MODEL_VERSION], gates, versions)
    console.print(table)


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `runs` with Arrow's lists of pairs as dictionaries."""
    return [{**row, c.ROW_COUNTS: dict(row[c.ROW_COUNTS]), c.FIGURES: dict(row[c.FIGURES])} for row in rows]


def _stages(runs: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Stages", box=box.SIMPLE, title_justify="left")
    table.add_column("stage", style="bold")
    table.add_column("seconds", justify="right")
    table.add_column("rows")
    for row in sorted(runs.values(), key=lambda row: row[c.FINISHED_AT]):
        seconds = (row[c.FINISHED_AT] - row[c.STARTED_AT]).total_seconds()
        table.add_row(row[c.STAGE], f"{seconds:.1f}", _rows(row))
    return table


def _rows(run: dict[str, Any]) -> str:
    counts = run[c.ROW_COUNTS]
    if run[c.STAGE] != "clean":
        rows = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or run[c.MESSAGE]
        return "\n".join([rows, *_drifts(run[c.FIGURES])])
    lines = run[c.MESSAGE].split("; ")
    reasons = sorted((name, count) for name, count in counts.items() if ":reason:" in name)
    return "\n".join(
        [*lines, *(f"  {name.replace(':reason:', ' rejected for ')}: {count:,}" for name, count in reasons)]
    )


def _drifts(figures: dict[str, float]) -> list[str]:
    """A line for every column whose normalisation has moved far since the last run."""
    lines = []
    for name in sorted(one.removeprefix(DRIFT) for one in figures if one.startswith(DRIFT)):
        center, scale = figures[f"{DRIFT}{name}"], figures[f"{DRIFT_SCALE}{name}"]
        if abs(center) > _LARGE_DRIFT or not 1 / _LARGE_RATIO < scale < _LARGE_RATIO:
            lines.append(
                f"[yellow]{name} has moved by {center:+.2f} of its scale, and that is {scale:.2f} times what it was"
            )
    return lines


def _metrics(reader: WarehouseReader) -> list[Table]:
    rows = reader.rows(schemas.EVALUATIONS.name)
    latest = max((row[c.AS_OF], row[c.MODEL_VERSION]) for row in rows)
    rows = [row for row in rows if (row[c.AS_OF], row[c.MODEL_VERSION]) == latest]
    tables = []
    for kind in ("new", "all"):
        of_kind = [row for row in rows if row[c.TARGET_KIND] == kind]
        # Rows of an older release have no slice: they are of the whole.
        whole = [row for row in of_kind if row.get(c.SLICE) in (None, _WHOLE)]
        tables.append(_metrics_of(kind, whole))
        parts = [row for row in of_kind if row.get(c.SLICE) not in (None, _WHOLE)]
        if parts:
            tables.append(_slices_of(parts))
    return tables


def _metrics_of(kind: str, rows: list[dict[str, Any]]) -> Table:
    what = "items new to the user" if kind == "new" else "all items, known ones included"
    users = max(row[c.USERS] for row in rows)
    table = Table(title=f"Quality on {what}: {users:,} users, 95% intervals", box=box.SIMPLE, title_justify="left")
    table.add_column("scorer", style="bold")
    for metric in _METRICS:
        table.add_column(metric, justify="right")
    cells = {(row[c.SCORER], row[c.METRIC]): row for row in rows}
    scorers = list(dict.fromkeys(row[c.SCORER] for row in rows))
    scorers.sort(key=lambda name: (" - " in name, -(cells[name, _METRICS[0]][c.MEAN])))
    for scorer in scorers:
        style = "green" if scorer == "model" else None
        table.add_row(scorer, *[_cell(cells.get((scorer, metric))) for metric in _METRICS], style=style)
    return table


def _slices_of(rows: list[dict[str, Any]]) -> Table:
    """A line a slice: its users, then every metric of every scorer that it was measured for."""
    cells = {(row[c.SLICE], row[c.METRIC], row[c.SCORER]): row for row in rows}
    columns = list(dict.fromkeys((row[c.METRIC], row[c.SCORER]) for row in rows))
    columns.sort(key=lambda column: column[0] != _METRICS[0])
    table = Table(title="By slice", box=box.SIMPLE, title_justify="left")
    table.add_column("slice", style="bold")
    table.add_column("users", justify="right")
    for metric, scorer in columns:
        table.add_column(f"{metric}\n{scorer}", justify="right")
    for part, users in {row[c.SLICE]: row[c.USERS] for row in rows}.items():
        table.add_row(escape(part), f"{users:,}", *[_cell(cells.get((part, *column))) for column in columns])
    return table


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row[c.LOW] is None or row[c.METRIC] != _METRICS[0]:
        return f"{row[c.MEAN]:.4f}"
    return f"{row[c.MEAN]:.4f}\n[dim]{row[c.LOW]:.4f}..{row[c.HIGH]:.4f}[/dim]"


def _release(reader: WarehouseReader, runs: dict[str, dict[str, Any]]) -> Panel:
    latest = max(reader.rows(schemas.RELEASES.name), key=lambda row: row[c.PUBLISHED_AT])
    lines = [
        f"release [bold]{latest[c.RELEASE_ID]}[/bold], model {latest[c.MODEL_VERSION]}",
        f"as of {latest[c.AS_OF]:%Y-%m-%d %H:%M} UTC",
    ]
    if "score" in runs:
        lines.append(runs["score"][c.MESSAGE])
    lines += [
        f"{reader.root}/{name}  (version {version})" for name, version in sorted(dict(latest[c.TABLE_VERSIONS]).items())
    ]
    return Panel("\n".join(lines), title="Published", title_align="left", expand=False)
