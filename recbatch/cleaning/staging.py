"""One parse of the raw files, kept as Parquet, so that everything after it reads columns and no text.

Both outputs of cleaning, and the search for duplicates and bots, read these files: parsing again would cost more than
writing them. They lie in the warehouse, where every executor reaches them, and are removed when the run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning.duplicates import ACCEPTED, REJECTED, reason_counts
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.tables import columns as c

ROW_ID = "row_id"
# Files of one date that readers can live with.
_FILES_A_DATE = 4


@dataclass(frozen=True)
class Staged:
    """The parsed rows of one input with a `row_id`, and what was counted while they were written.

    counts: rows read, accepted and rejected by what is wrong with them alone, and rows by reason code.
    dates: the event dates of the accepted rows, as yyyy-MM-dd.
    scattered: whether most tasks hold most dates, so that writing without a shuffle would make a file of each pair.
    """

    rows: DataFrame
    codes: Sequence[str]
    counts: dict[str, int]
    dates: Sequence[str]
    scattered: bool


def stage_rows(parsed: DataFrame, codes: Sequence[str], folder: str, path: str) -> Staged:
    """Write the rows of `parse_events` to `folder` and read them back; `path` is what an error names.

    Raises:
        InputContractError: a file of the input cannot be read.
    """
    observed = Observation("staging")
    good = F.col(c.REASONS) == 0
    counted = parsed.withColumn(ROW_ID, F.monotonically_increasing_id()).observe(
        observed,
        F.count(F.lit(1)).alias("read"),
        F.count_if(good).alias(ACCEPTED),
        F.count_if(~good).alias(REJECTED),
        *reason_counts(codes),
    )
    try:
        counted.write.mode("overwrite").parquet(folder)
    except READ_FAILURES as error:
        raise explain_read_failure(error, path) from error
    counts = {name: int(n) for name, n in observed.get.items() if n or not name.startswith("reason:")}
    rows = parsed.sparkSession.read.schema(counted.schema).parquet(folder)
    dates, parts = _dates(rows.where(good))
    return Staged(rows, codes, counts, dates, parts > _FILES_A_DATE * len(dates))


def _dates(rows: DataFrame) -> tuple[list[str], int]:
    """The event dates, and the number of pairs of a date and a task that parsed it (the upper half of a row id)."""
    parts = rows.select(F.to_date(c.EVENT_TIME).alias("day"), F.shiftright(ROW_ID, 33).alias("task")).distinct()
    row = parts.agg(F.sort_array(F.collect_set(F.col("day").cast("string"))), F.count(F.lit(1))).first()
    return (row[0], row[1]) if row is not None else ([], 0)
