"""Dense, append-only indices: an entry keeps its number for ever, so that old models and new tables agree."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def new_entries(
    values: DataFrame, known: DataFrame | None, key: Sequence[str], number: str, *, first: int
) -> DataFrame:
    """The rows of `values` that `known` lacks, numbered without holes after the entries of `known`.

    Args:
        values: distinct rows of the columns `key`.
        known: the index so far, or None.
        number: the name of the number's column.
        first: the number of the very first entry.

    New entries are ordered by a hash of their key: a number that followed the id's own order would carry into the
    model what the shop's ids give away, such as an item's age.
    """
    fresh = values.select(*key)
    taken = F.lit(first)
    if known is not None:
        fresh = fresh.join(known.select(*key), on=list(key), how="left_anti")
        # An aggregate of one row, so that the number of entries need not come to the driver.
        last = known.agg((F.coalesce(F.max(number), F.lit(first - 1)) + 1).alias("_taken"))
        fresh = fresh.crossJoin(F.broadcast(last))
        taken = F.col("_taken")
    by_hash = Window.orderBy(F.xxhash64(*key), *key)
    return fresh.select(*key, (taken + F.row_number().over(by_hash) - 1).cast("int").alias(number))
