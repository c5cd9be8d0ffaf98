"""A user's past as arrays in time order: what the encoder reads, and everything the user has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.transforms import normalization
from recbatch.transforms.parameters import Parameters


def user_bucket(buckets: int) -> Column:
    """The partition of a user in every per-user table."""
    return F.pmod(F.xxhash64(c.USER_ID), F.lit(buckets)).cast("int")


def behaviours(events: DataFrame, item_index: DataFrame, event_types: Sequence[str], buckets: int) -> DataFrame:
    """One row an event, in the internal form: item_idx, event-type code, epoch seconds; price and quantity as they are.

    `tie` orders what happened in the same second, by a hash: the order of ids must not reach the model.
    """
    codes = F.create_map(*[F.lit(part) for code, name in enumerate(event_types) for part in (name, code)])
    return events.join(item_index.select(c.ITEM_ID, c.ITEM_IDX), on=c.ITEM_ID).select(
        c.USER_ID,
        user_bucket(buckets).alias(c.USER_BUCKET),
        c.ITEM_IDX,
        F.element_at(codes, F.col(c.EVENT_TYPE)).alias(c.EVENT_TYPE),
        F.unix_timestamp(c.EVENT_TIME).alias(c.EVENT_TIME),
        c.PRICE,
        c.QUANTITY,
        F.xxhash64(c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_TYPE, c.BASKET_ID, c.QUERY).alias("tie"),
    )


_PARTS = (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)


def sequences(rows: DataFrame, parameters: Mapping[str, Parameters], length: int) -> DataFrame:
    """The last `length` behaviours of every user and all items the user has seen; input as from `behaviours`.

    Price and quantity are normalised by `parameters`. One shuffle, by bucket: the window and the aggregation below it
    find the rows where they are.
    """
    order = [c.EVENT_TIME, "tie"]
    newest_first = Window.partitionBy(c.USER_BUCKET, c.USER_ID).orderBy(*[F.desc(name) for name in order])
    recent = F.when(F.col("_age") <= length, F.struct(*order, *[name for name in _PARTS if name not in order]))
    grouped = (
        rows.withColumns({name: normalization.apply(F.col(name), parameters[name]) for name in (c.PRICE, c.QUANTITY)})
        .repartition(c.USER_BUCKET)
        .withColumn("_age", F.row_number().over(newest_first))
        .groupBy(c.USER_BUCKET, c.USER_ID)
        .agg(
            F.array_sort(F.collect_list(recent)).alias("_recent"), F.array_sort(F.collect_set(c.ITEM_IDX)).alias(c.SEEN)
        )
    )
    return grouped.select(c.USER_ID, c.USER_BUCKET, *[F.col(f"_recent.{name}").alias(name) for name in _PARTS], c.SEEN)


def targets(rows: DataFrame) -> DataFrame:
    """The distinct items of every user, as the truth of an evaluation; input as from `behaviours`."""
    return (
        rows.groupBy(c.USER_BUCKET, c.USER_ID)
        .agg(F.array_sort(F.collect_set(c.ITEM_IDX)).alias(c.TARGETS))
        .select(c.USER_ID, c.USER_BUCKET, c.TARGETS)
    )
