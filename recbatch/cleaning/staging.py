"""One parse of the raw files, kept as Parquet, so that everything after it reads columns and no text.

Both outputs of cleaning, and the search for duplicates and bots, read these files: parsing again would cost more than
writing them. They lie in the warehouse, where every executor reaches them, and are removed when the run ends.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.cleaning.events import VALUES
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.tables import columns as c

ROW_ID = "row_id"
MISSING = "_missing"


@dataclass(frozen=True)
class Tally:
    """Rows by the mask of their reasons and, of those without a reason, by day and type, and missing cells by column.

    earliest, latest: event times of the rows without a reason; None where there are none. pieces: pairs of a day and a
    task that parsed rows of it, at most; rows of a day that come together make few.
    """

    reasons: Counter[int] = field(default_factory=Counter)
    days: Counter[tuple[dt.date, str]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    earliest: dt.datetime | None = None
    latest: dt.datetime | None = None
    pieces: int = 0

    def dates(self) -> list[dt.date]:
        """The event dates of the rows without a reason."""
        return sorted({day for day, _ in self.days})


@dataclass(frozen=True)
class Staged:
    """The parsed rows of one input with a `row_id`, the codes of their reasons, and their tally."""

    rows: DataFrame
    codes: Sequence[str]
    tally: Tally


def stage_rows(parsed: DataFrame, codes: Sequence[str], folder: str, path: str) -> Staged:
    """Write the rows of `parse_events` to `folder` and read them back; `path` is what an error names.

    Raises:
        InputContractError: a file of the input cannot be read.
    """
    rows = parsed.withColumns({ROW_ID: F.monotonically_increasing_id(), MISSING: missing_mask()})
    try:
        rows.write.mode("overwrite").parquet(folder)
    except READ_FAILURES as error:
        raise explain_read_failure(error, path) from error
    staged = parsed.sparkSession.read.schema(rows.schema).parquet(folder)
    return Staged(staged.drop(MISSING), codes, tally(staged))


def missing_mask() -> Column:
    """A bit for every missing value of a row, in the order of `VALUES`."""
    bits = [F.when(F.col(name).isNull(), 1 << n).otherwise(0) for n, name in enumerate(VALUES)]
    return reduce(Column.__add__, bits)


def missing_columns(mask: int) -> list[str]:
    """The names of the columns whose bits are set in a `missing_mask`."""
    return [name for n, name in enumerate(VALUES) if mask >> n & 1]


def tally(rows: DataFrame) -> Tally:
    """Count the rows of a staged folder: one look at four columns, that Parquet stores in few bytes a row."""
    good = F.col(c.REASONS) == 0
    groups = rows.groupBy(
        c.REASONS,
        F.when(good, F.to_date(c.EVENT_TIME)).alias("day"),
        F.when(good, F.col(c.EVENT_TYPE)).alias("type"),
        F.when(good, F.col(MISSING)).alias("missing"),
    )
    bounds = [F.unix_micros(one(c.EVENT_TIME)).alias(one.__name__) for one in (F.min, F.max)]
    # The upper half of a row id is the number of the task that parsed the row.
    bounds += [F.shiftright(one(ROW_ID), 33).alias(f"{one.__name__}_task") for one in (F.min, F.max)]
    reasons, days, missing = Counter[int](), Counter[tuple[dt.date, str]](), Counter[str]()
    earliest, latest = [], []
    tasks: dict[dt.date, tuple[int, int]] = {}
    for row in groups.agg(F.count(F.lit(1)).alias("n"), *bounds).collect():
        reasons[row[c.REASONS]] += row["n"]
        if row[c.REASONS] == 0:
            days[row["day"], row["type"]] += row["n"]
            missing.update(dict.fromkeys(missing_columns(row["missing"]), row["n"]))
            earliest.append(row["min"])
            latest.append(row["max"])
            first, last = tasks.get(row["day"], (row["min_task"], row["max_task"]))
            tasks[row["day"]] = (min(first, row["min_task"]), max(last, row["max_task"]))
    pieces = sum(last - first + 1 for first, last in tasks.values())
    first_event, last_event = _moment(min(earliest, default=None)), _moment(max(latest, default=None))
    return Tally(reasons, days, missing, first_event, last_event, pieces)


def _moment(micros: int | None) -> dt.datetime | None:
    return None if micros is None else dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
