"""What a batch says about the quality of the log, as rows of the table `data_quality`."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.cleaning.staging import Tally
from recbatch.tables import columns as c
from recbatch.tables.schemas import DATA_QUALITY

EVENTS_A_DAY, MISSING_VALUES, DISTINCT, EARLIEST, LATEST = "events", "missing", "distinct", "earliest", "latest"

Figure = tuple[str, str, dt.date | None, float]


def quality_rows(run_id: str, tally: Tally, distinct: dict[str, int]) -> list[dict[str, Any]]:
    """Accepted events by day and type, missing cells and distinct values by column, and the time that the log spans.

    Times are epoch seconds. `distinct` is by column.
    """
    figures: list[Figure] = [
        (EVENTS_A_DAY, kind, day, float(n)) for (day, kind), n in sorted(tally.days.items(), key=str)
    ]
    figures += [(MISSING_VALUES, name, None, float(n)) for name, n in sorted(tally.missing.items())]
    figures += [(DISTINCT, name, None, float(n)) for name, n in sorted(distinct.items())]
    for metric, moment in ((EARLIEST, tally.earliest), (LATEST, tally.latest)):
        if moment is not None:
            figures.append((metric, c.EVENT_TIME, None, moment.timestamp()))
    return [dict(zip(DATA_QUALITY.schema.names, (run_id, *figure), strict=True)) for figure in figures]


def distinct_values(accepted: DataFrame) -> dict[str, int]:
    """About how many users and items there are (HyperLogLog++, within about 2%)."""
    names = (c.USER_ID, c.ITEM_ID)
    row = accepted.agg(*[F.approx_count_distinct(name, 0.02).alias(name) for name in names]).first()
    return {} if row is None else {name: int(row[name]) for name in names}
