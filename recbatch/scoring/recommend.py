"""The kernel under mapInArrow: user sequences in, ranked lists out, nothing shuffled and nothing collected."""

from __future__ import annotations

from functools import reduce

from pyspark import SparkContext
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.config.sections import ScoringSection
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.worker import AUDIENCE_RANK, ChosenItems, Meters, Request, Shipped, score_partition
from recbatch.tables import columns as c

_BEHAVIOURS = (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
_LISTS_DDL = (
    f"{c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string, {c.SCORE} float, {c.BECAUSE_ITEM_ID} string, "
    f"{c.REASON} string, {c.USER_FINGERPRINT} bigint, {c.USER_BUCKET} int"
)


def create_meters(spark: SparkContext) -> Meters:
    """Counters that tasks add to when they end."""
    encoding, ranking, explaining, writing = (spark.accumulator(0.0, _Seconds()) for _ in range(4))
    peak = spark.accumulator(0.0, _Largest())
    return Meters(spark.accumulator(0), spark.accumulator(0), encoding, ranking, explaining, writing, peak)


def prepared(sequences: DataFrame, scorer: Scorer, section: ScoringSection, signature: str = "") -> DataFrame:
    """The behaviours that the model reads, the seen items, and a fingerprint of all of it: one row a user.

    Rows of the same fingerprint have the same list; `signature` stands in it for the model and the options.
    """
    used = scorer.model.config.context_length
    if scorer.fusion is not None:
        used = max(used, scorer.fusion.behaviours)
    tails = {name: F.expr(f"slice({name}, greatest(size({name}) - {used - 1}, 1), {used})") for name in _BEHAVIOURS}
    lean = sequences.select(c.USER_ID, c.USER_BUCKET, *[column.alias(name) for name, column in tails.items()], c.SEEN)
    return lean.withColumn(c.USER_FINGERPRINT, _fingerprint(section.filter_viewed, signature))


def _fingerprint(filter_viewed: bool, signature: str) -> Column:
    # Nulls are skipped and lists are run together by the hash, so that their lengths are part of it.
    of = [*_BEHAVIOURS, c.SEEN] if filter_viewed else list(_BEHAVIOURS)
    return F.xxhash64(F.lit(signature), *[part for name in of for part in (F.size(name), F.col(name))])


def recommend(
    users: DataFrame,
    shipped: Shipped,
    section: ScoringSection,
    partitions: int,
    meters: Meters,
    audience: ChosenItems | None = None,
) -> DataFrame:
    """`section.k` rows a user: the exact best items over all eligible ones, with score, reason and fingerprint.

    users: `prepared` ones. A bucket is scored by one task, so that writing by bucket makes one file a bucket. Rows of
    rank 0 are those of the `audience`: an item's best users among those of a task.
    """
    spread = _spread(users, partitions)
    shards = range(section.item_shards)
    passes = [
        spread.mapInArrow(
            score_partition(
                shipped,
                Request(
                    section.k,
                    section.filter_viewed,
                    section.batch_users,
                    shard,
                    len(shards),
                    None if shard else audience,  # one pass is enough for that
                ),
                meters,
            ),
            _LISTS_DDL,
        )
        for shard in shards
    ]
    return passes[0] if len(passes) == 1 else _merged(passes, section.k)


def merged_audiences(parts: DataFrame, size: int) -> DataFrame:
    """The best `size` users of every item from those of all tasks: what is shuffled are lists, never pairs."""
    best = Window.partitionBy(c.ITEM_ID).orderBy(F.desc(c.SCORE), c.USER_ID)
    return parts.withColumn(c.RANK, F.row_number().over(best)).where(F.col(c.RANK) <= size)


def _merged(passes: list[DataFrame], k: int) -> DataFrame:
    """The best k rows of every user: what Spark shuffles are lists of parts of the items, never pairs."""
    of_user = Window.partitionBy(c.USER_BUCKET, c.USER_ID, F.col(c.RANK) == AUDIENCE_RANK)
    best = of_user.orderBy(F.desc(c.SCORE), c.ITEM_ID)
    union = reduce(DataFrame.unionByName, passes)
    rank = F.when(F.col(c.RANK) == AUDIENCE_RANK, AUDIENCE_RANK).otherwise(F.row_number().over(best))
    return union.withColumn(c.RANK, rank).where(F.col(c.RANK) <= k)


def _spread(users: DataFrame, partitions: int) -> DataFrame:
    # Without a number of its own the stage would be coalesced to one task.
    return users.repartitionById(partitions, c.USER_BUCKET)


class _Largest(AccumulatorParam[float]):
    def zero(self, value: float) -> float:
        return 0.0

    def addInPlace(self, value1: float, value2: float) -> float:  # noqa: N802
        return max(value1, value2)


class _Seconds(AccumulatorParam[float]):
    def zero(self, value: float) -> float:
        return 0.0

    def addInPlace(self, value1: float, value2: float) -> float:  # noqa: N802
        return value1 + value2
