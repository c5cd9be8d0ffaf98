"""What the summary says of a run of a stage."""

from __future__ import annotations

import datetime as dt
from typing import Any

from rich.console import Console

from recbatch.report.summary import _stages
from recbatch.tables import columns as c


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
