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
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.config.sections import NeighboursSection
from recbatch.tables import columns as c

_SECONDS_A_DAY = 86_400.0


def item_neighbours(
    behaviours: DataFrame, section: NeighboursSection, cuts: Mapping[str, dt.datetime]
) -> dict[str, DataFrame]:
    """The strongest `section.per_item` neighbours of every item as of each cut; input as from `behaviours`.

    Whether a pair counts depends on what came before it only, so the pairs are made once and every cut sums those
    before it. There are at most `window` x the distinct (user, item) pairs of the log; no user's history is held in
    memory beyond its window.
    """
    sums = [
        F.sum(F.when(F.col("time") < int(cut.timestamp()), _decay(section, cut))).alias(name)
        for name, cut in cuts.items()
    ]
    counts = _pairs(behaviours, section).groupBy("source", "target").agg(*sums).localCheckpoint(eager=True)
    return {
        name: _strongest(counts.where(F.col(name) > 0).select("source", "target", F.col(name).alias("n")), section)
        for name in cuts
    }


def _decay(section: NeighboursSection, cut: dt.datetime) -> Column:
    age_days = (F.lit(cut.timestamp()) - F.col("time")) / _SECONDS_A_DAY
    return F.pow(F.lit(2.0), -age_days / section.half_life_days)


def _strongest(counts: DataFrame, section: NeighboursSection) -> DataFrame:
    """Damp the sums `n` of (source, target) by the totals of both, and keep the best of every source.

    Totals are a row an item and are broadcast; the best are kept in a heap a source, so nothing is sorted.
    """
    sources = counts.groupBy("source").agg(F.sum("n").alias("n_source"))
    targets = counts.groupBy("target").agg(F.sum("n").alias("n_target"))
    damped = F.col("n") / (
        F.pow("n_source", F.lit(section.source_power)) * F.pow("n_target", F.lit(section.target_power))
    )
    strongest = F.max_by(F.struct("target", "w"), F.struct("w", F.xxhash64("target")), section.per_item)
    return (
        counts.join(F.broadcast(sources), on="source")
        .join(F.broadcast(targets), on="target")
        .withColumn("w", damped)
        .groupBy("source")
        .agg(strongest.alias("top"))
        .select(
            F.col("source").alias(c.ITEM_IDX),
            F.col("top.target").alias(c.NEIGHBOURS),
            F.col("top.w").cast("array<float>").alias(c.WEIGHTS),
        )
    )


def _pairs(behaviours: DataFrame, section: NeighboursSection) -> DataFrame:
    """(source, target, time), one row a pair; time is that of the target's event in epoch seconds."""
    mine = Window.partitionBy(c.USER_BUCKET, c.USER_ID)
    in_order = mine.orderBy(c.EVENT_TIME, "tie")
    first = F.row_number().over(Window.partitionBy(c.USER_BUCKET, c.USER_ID, c.ITEM_IDX).orderBy(c.EVENT_TIME, "tie"))
    before = F.collect_list(c.ITEM_IDX).over(in_order.rowsBetween(-section.window, -1))
    return (
        behaviours.repartition(c.USER_BUCKET)
        .select(c.USER_BUCKET, c.USER_ID, c.ITEM_IDX, c.EVENT_TIME, "tie")
        .withColumn("before", before)
        .withColumn("visit", first)
        .where(F.col("visit") == 1)
        .select(
            F.explode("before").alias("source"),
            F.col(c.ITEM_IDX).alias("target"),
            F.col(c.EVENT_TIME).alias("time"),
        )
        .where(F.col("source") != F.col("target"))
    )
