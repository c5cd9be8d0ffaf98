"""Dense, append-only indices: an entry keeps its number for ever, so that old models and new tables agree."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore


def extend_index(
    tables: TableStore, spec: TableSpec, values: DataFrame, key: Sequence[str], number: str, first: int, run_id: str
) -> bool:
    """Number those of `values` that the index `spec` lacks; returns whether there were any.

    The new entries are committed on top of the very version that they were computed from. Where another run came first,
    they are computed again: so no entry gets two numbers, and no number two entries.
    """
    tables.create_missing(spec)
    added = False
    while True:
        version = tables.version(spec)
        fresh = new_entries(values, tables.read(spec, version), key, number, first=first)
        rows = fresh.withColumn(c.RUN_ID, F.lit(run_id)).toArrow()
        added |= len(rows) > 0
        if not len(rows) or tables.append_unique(spec, rows, version or 0, [key, [number]]):
            return added


def new_entries(values: DataFrame, known: DataFrame, key: Sequence[str], number: str, *, first: int) -> DataFrame:
    """The rows of `values` that `known` lacks, numbered without holes after the entries of `known`.

    Args:
        values: distinct rows of the columns `key`.
        known: the index so far.
        number: the name of the number's column.
        first: the number of the very first entry.

    New entries are ordered by a hash of their key: a number that followed the id's own order would carry into the
    model what the shop's ids give away, such as an item's age.
    """
    # An aggregate of one row, so that the number of entries need not come to the driver.
    last = known.agg((F.coalesce(F.max(number), F.lit(first - 1)) + 1).alias("_taken"))
    fresh = values.select(*key).join(known.select(*key), on=list(key), how="left_anti").crossJoin(F.broadcast(last))
    by_hash = Window.orderBy(F.xxhash64(*key), *key)
    return fresh.select(*key, (F.col("_taken") + F.row_number().over(by_hash) - 1).cast("int").alias(number))
