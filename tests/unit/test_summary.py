"""What the summary says of a run of a stage, and of an evaluation."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from rich.console import Console

from recbatch.report.reader import WarehouseReader
from recbatch.report.summary import _metrics, _stages
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.contracts import arrow_schema


def _printed(**row: Any) -> str:
    started = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    finished = {c.STARTED_AT: started, c.FINISHED_AT: started + dt.timedelta(seconds=3)}
    run = {c.ROW_COUNTS: {}, c.FIGURES: {}, c.MESSAGE: ""} | finished | row
    console = Console(width=150, force_terminal=False)
    with console.capture() as captured:
        console.print(_stages({row[c.STAGE]: run}))
    return captured.get()


def test_large_drift_is_shown_and_small_one_is_not() -> None:
    figures = {
        "drift:events.price": 0.8,
        "drift_scale:events.price": 1.0,
        "drift:events.quantity": -0.1,
        "drift_scale:events.quantity": 0.5,
        "drift:items.size": 0.2,
        "drift_scale:items.size": 1.1,
    }
    text = _printed(stage="features", row_counts={"item_index": 5}, figures=figures)
    assert "item_index 5" in text
    assert "events.price has moved by +0.80 of its scale, and that is 1.00 times what it was" in text
    assert "events.quantity has moved by -0.10 of its scale, and that is 0.50 times what it was" in text
    assert "items.size" not in text


def test_a_model_that_does_not_beat_the_group_mean_is_shown() -> None:
    line = "knn for brand does not beat the most frequent value of each maker: 2.0% wrong against 1.0% wrong"
    text = _printed(stage="clean", message=f"events: 5 read; {line}", row_counts={"events:reason:bot_rate": 2})
    assert line in text
    assert "events rejected for bot_rate: 2" in text


def _evaluation(scorer: str, kind: str, part: str, metric: str, mean: float, users: int) -> dict[str, Any]:
    return {
        c.MODEL_VERSION: "20240101-0001",
        c.SCORER: scorer,
        c.TARGET_KIND: kind,
        c.SLICE: part,
        c.METRIC: metric,
        c.MEAN: mean,
        c.LOW: mean - 0.01,
        c.HIGH: mean + 0.01,
        c.USERS: users,
        c.AS_OF: dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        c.RUN_ID: "run",
    }


def _shown(warehouse: Path, evaluations: pa.Table) -> str:
    write_deltalake(warehouse / schemas.EVALUATIONS.name, evaluations)
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(*_metrics(WarehouseReader(str(warehouse))))
    return captured.get()


def test_slices_of_an_evaluation_are_shown_beside_the_whole(tmp_path: Path) -> None:
    rows = [
        _evaluation(scorer, kind, part, metric, mean + lead, users)
        for kind in ("new", "all")
        for scorer, lead in (("model", 0.05), ("popularity", 0.0))
        for part, mean, users in (("all", 0.3, 900), ("new_items", 0.1, 40), ("brand=[b]", 0.2, 70))
        for metric in ("ndcg@10", "recall@10")
    ]
    text = _shown(tmp_path, pa.Table.from_pylist(rows, arrow_schema(schemas.EVALUATIONS)))
    lines = [line.split() for line in text.splitlines()]

    assert text.count("900 users") == 2
    # Slice, users, NDCG of the model and the baseline, recall of both.
    assert lines.count(["new_items", "40", "0.1500", "0.1000", "0.1500", "0.1000"]) == 2
    assert lines.count(["brand=[b]", "70", "0.2500", "0.2000", "0.2500", "0.2000"]) == 2
    # The figures of the whole are not those of a slice.
    assert lines.count(["model", "0.3500", "0.3500"]) == 2


def test_an_evaluation_of_an_older_release_has_no_slices_and_is_shown(tmp_path: Path) -> None:
    rows = [_evaluation("model", kind, "all", "ndcg@10", 0.3, 900) for kind in ("new", "all")]
    table = pa.Table.from_pylist(rows, arrow_schema(schemas.EVALUATIONS)).drop_columns([c.SLICE])
    text = _shown(tmp_path, table)

    assert text.count("900 users") == 2
    assert "By slice" not in text
