"""Events in the internal form that users' pasts are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.tables import columns as c


def user_bucket(buckets: int) -> Column:
    """The partition of a user in every per-user table."""
    return F.pmod(F.xxhash64(c.USER_ID), F.lit(buckets)).cast("int")


def behaviours(
    events: DataFrame, item_index: DataFrame, event_types: Sequence[str], buckets: int, forgotten: Collection[str] = ()
) -> DataFrame:
    """One row an event: item_idx (null: not in the index), event-type code, epoch seconds, price and quantity.

    forgotten: of price and quantity, those whose imputed cells are emptied again: what the whole log filled in must not
    reach an earlier cut.
    """
    code = F.lit(None).cast("int")
    for number, name in enumerate(event_types):
        code = F.when(F.col(c.EVENT_TYPE) == name, number).otherwise(code)
    amounts = {
        name: F.when(~F.array_contains(c.IMPUTED, name), F.col(name)) if name in forgotten else F.col(name)
        for name in (c.PRICE, c.QUANTITY)
    }
    index = F.broadcast(item_index.select(c.ITEM_ID, c.ITEM_IDX))
    return events.join(index, on=c.ITEM_ID, how="left").select(
        c.USER_ID,
        user_bucket(buckets).alias(c.USER_BUCKET),
        c.ITEM_IDX,
        code.alias(c.EVENT_TYPE),
        F.unix_timestamp(c.EVENT_TIME).alias(c.EVENT_TIME),
        *[amount.cast("float").alias(name) for name, amount in amounts.items()],
    )


def with_all_buckets(rows: DataFrame, buckets: int) -> DataFrame:
    """The rows of `behaviours`, and one without a user for each bucket."""
    columns = [F.lit(None).cast(field.dataType).alias(field.name) for field in rows.schema]
    place = rows.columns.index(c.USER_BUCKET)
    columns[place] = F.col("id").cast("int").alias(c.USER_BUCKET)
    return rows.unionByName(rows.sparkSession.range(buckets).select(*columns))
