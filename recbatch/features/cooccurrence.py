"""Directed, time-decayed co-occurrence: which item leads to which, from the order of every user's behaviours.

A pair h -> i is counted where h is among the `window` behaviours before a user's *first* interaction with i. What a
user comes back to says that the user likes it, which the sequence shows already; what leads to something new is what
a recommendation of something new needs. A pair of age a days (before the cut) weighs 2^(-a / half_life_days).

The weight of a neighbour is n(h, i) / (n(h, ·)^source_power · n(·, i)^target_power): powers of 0 give decayed counts,
1 and 0 the conditional probability, 0.5 and 0.5 the cosine (Deshpande and Karypis, "Item-based top-N recommendation
algorithms", ACM TOIS 2004).
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recbatch.config.sections import NeighboursSection
from recbatch.tables import columns as c

_SECONDS_A_DAY = 86_400.0


def item_neighbours(behaviours: DataFrame, section: NeighboursSection, as_of: dt.datetime) -> DataFrame:
    """The strongest `section.per_item` neighbours of every item; input as from `user_sequences.behaviours`.

    The number of pairs is at most `window` × the distinct (user, item) pairs of the log, and they are summed before
    they are shuffled; no user's history is held in memory beyond its window.
    """
    # Everything below is by source, so one shuffle by source serves the sums, the totals and the ranking.
    pairs = _pairs(behaviours, section, as_of).repartition("source")
    counts = pairs.groupBy("source", "target").agg(F.sum("weight").alias("n")).localCheckpoint(eager=True)
    targets = counts.groupBy("target").agg(F.sum("n").alias("n_target"))
    of_source = Window.partitionBy("source")
    damped = F.col("n") / (
        F.pow(F.sum("n").over(of_source), F.lit(section.source_power))
        * F.pow("n_target", F.lit(section.target_power))
    )
    strongest = of_source.orderBy(F.desc("w"), F.xxhash64("target"))
    return (
        counts.join(F.broadcast(targets), on="target")
        .withColumn("w", damped)
        .withColumn("place", F.row_number().over(strongest))
        .where(F.col("place") <= section.per_item)
        .groupBy("source")
        .agg(F.array_sort(F.collect_list(F.struct("place", "target", "w"))).alias("top"))
        .select(
            F.col("source").alias(c.ITEM_IDX),
            F.col("top.target").alias(c.NEIGHBOURS),
            F.col("top.w").cast("array<float>").alias(c.WEIGHTS),
        )
    )


def _pairs(behaviours: DataFrame, section: NeighboursSection, as_of: dt.datetime) -> DataFrame:
    """(source, target, weight), one row a pair."""
    mine = Window.partitionBy(c.USER_BUCKET, c.USER_ID)
    in_order = mine.orderBy(c.EVENT_TIME, "tie")
    first = F.row_number().over(
        Window.partitionBy(c.USER_BUCKET, c.USER_ID, c.ITEM_IDX).orderBy(c.EVENT_TIME, "tie")
    )
    before = F.collect_list(c.ITEM_IDX).over(in_order.rowsBetween(-section.window, -1))
    age_days = (F.lit(as_of.timestamp()) - F.col(c.EVENT_TIME)) / _SECONDS_A_DAY
    return (
        behaviours.repartition(c.USER_BUCKET)
        .select(c.USER_BUCKET, c.USER_ID, c.ITEM_IDX, c.EVENT_TIME, "tie")
        .withColumn("before", before)
        .withColumn("visit", first)
        .where(F.col("visit") == 1)
        .select(
            F.explode("before").alias("source"),
            F.col(c.ITEM_IDX).alias("target"),
            F.pow(F.lit(2.0), -age_days / section.half_life_days).alias("weight"),
        )
        .where(F.col("source") != F.col("target"))
    )
