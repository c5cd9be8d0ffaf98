"""The data-quality summary: figures of a run's batches are added up, and set beside those of the run before."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from rich.console import Console

from recbatch.report.quality import print_quality, quality_of

DAY = dt.date(2024, 3, 1)
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC).timestamp()


def _figure(run: str, metric: str, subject: str, value: float, day: dt.date | None = None) -> dict[str, Any]:
    return {"run_id": run, "metric": metric, "subject": subject, "event_date": day, "value": value}


FIGURES = [
    _figure("a", "events", "view", 5, DAY),
    _figure("b", "events", "view", 30, DAY),
    _figure("b", "events", "view", 10, DAY),
    _figure("b", "events", "purchase", 2, DAY + dt.timedelta(days=1)),
    _figure("a", "missing", "price", 1),
    _figure("b", "missing", "price", 20),
    _figure("b", "missing", "price", 1),
    _figure("b", "distinct", "user_id", 17),
    _figure("b", "distinct", "user_id", 12),
    _figure("a", "earliest", "event_time", NOON - 60),
    _figure("a", "latest", "event_time", NOON),
    _figure("b", "earliest", "event_time", NOON),
    _figure("b", "latest", "event_time", NOON + 7200),
    _figure("b", "latest", "event_time", NOON + 3600),
]


def _run(run: str, hour: int, **counts: int) -> dict[str, Any]:
    return {
        "run_id": run,
        "stage": "clean",
        "status": "done",
        "finished_at": dt.datetime(2024, 3, 2, hour, tzinfo=dt.UTC),
        "row_counts": {f"events:{name.replace('__', ':')}": n for name, n in counts.items()},
    }


RUNS = [
    _run("a", 1, read=10, accepted=5, rejected=5, reason__unknown_item=5),
    _run("b", 2, read=84, accepted=42, exact_duplicate=21, rejected=21, reason__unknown_item=21),
    _run("nothing", 3, read=0),
]


def test_batches_of_a_run_are_added_up() -> None:
    found = quality_of(RUNS[1], FIGURES)
    assert found.rows["read"] == 84
    assert {day: dict(kinds) for day, kinds in found.days.items()} == {
        DAY: {"view": 40},
        DAY + dt.timedelta(days=1): {"purchase": 2},
    }
    assert dict(found.missing) == {"price": 21}
    # Batches share users: the largest of them is the least there can be.
    assert dict(found.distinct) == {"user_id": 17}
    assert found.times == {"earliest": NOON, "latest": NOON + 7200}


def _printed(warehouse: Path, runs: list[dict[str, Any]]) -> str:
    kinds = pa.schema(
        [("run_id", pa.string()), ("metric", pa.string()), ("subject", pa.string()), ("event_date", pa.date32())]
    )
    write_deltalake(
        warehouse / "data_quality", pa.Table.from_pylist(FIGURES, kinds.append(pa.field("value", pa.float64())))
    )
    rows = [{**run, "row_counts": list(run["row_counts"].items())} for run in runs]
    schema = pa.schema(
        [
            ("run_id", pa.string()),
            ("stage", pa.string()),
            ("status", pa.string()),
            ("finished_at", pa.timestamp("us", "UTC")),
            ("row_counts", pa.map_(pa.string(), pa.int64())),
        ]
    )
    write_deltalake(warehouse / "runs", pa.Table.from_pylist(rows, schema))
    out = io.StringIO()
    print_quality(Console(file=out, width=120), str(warehouse))
    return out.getvalue()


def test_the_screen_sets_a_run_beside_the_one_before(tmp_path: Path) -> None:
    text = _printed(tmp_path, RUNS)
    assert "in run b" in text
    lines = {line.strip().split("  ")[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["rejected for unknown_item"][-3:] == ["21", "25.00%", "50.00%"]
    assert lines["price"][1:] == ["50.00%", "20.00%"]
    assert lines["user_id"][-1] == "17"
    assert lines["2024-03-01"][1:] == ["0", "40"]
    assert "to 2024-03-01 14:00 UTC; the latest is +2.0 hours from that of the run before" in text


def test_a_first_run_has_nothing_beside_it(tmp_path: Path) -> None:
    text = _printed(tmp_path, RUNS[:1])
    assert "in run a" in text
    assert "hours from" not in text


def test_a_warehouse_without_a_run_prints_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    print_quality(Console(file=out), str(tmp_path))
    assert out.getvalue() == ""
