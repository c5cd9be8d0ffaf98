"""Marks every row as accepted, rejected or one of two kinds of duplicate, in one sort, whatever the partitioning."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.tables import columns as c

OUTCOME = "outcome"
ACCEPTED = "accepted"
REJECTED = "rejected"
EXACT_DUPLICATE = "exact_duplicate"
KEY_DUPLICATE = "key_duplicate"


def mark_outcome(
    rows: DataFrame, key: Sequence[str], content: Sequence[str], *, prefer: Sequence[Column] = ()
) -> DataFrame:
    """Add `outcome`: of rows equal in `key` the first by `prefer`, then by content, is accepted.

    A later row that equals its predecessor in all of `content` is an exact duplicate, any other a key duplicate.
    Rows with a code in `reasons` are rejected and are nobody's duplicate.
    """
    rejected = F.col(c.REASONS) != ""
    # Rejected rows often share an empty key: a salt keeps them from meeting in one task.
    salt = F.when(rejected, F.monotonically_increasing_id())
    values = F.struct(*[F.col(name) for name in content])
    # The hash decides nearly every comparison of the sort; the content itself settles what collides.
    ordered = Window.partitionBy(*key, "_salt").orderBy(*prefer, F.xxhash64(*content), *content, c.SOURCE_FILE)
    exact = F.lag(values).over(ordered).eqNullSafe(values) & (F.row_number().over(ordered) > 1)
    return (
        rows.withColumn("_salt", salt)
        .withColumn(
            OUTCOME,
            F.when(rejected, REJECTED)
            .when(exact, EXACT_DUPLICATE)
            .when(F.row_number().over(ordered) > 1, KEY_DUPLICATE)
            .otherwise(ACCEPTED),
        )
        .drop("_salt")
    )


def outcome_counts(reasons: Sequence[str]) -> list[Column]:
    """Aggregates for `observe`: rows read, rows of each outcome, and rows that each reason applied to."""
    outcomes = (ACCEPTED, REJECTED, EXACT_DUPLICATE, KEY_DUPLICATE)
    return [
        F.count(F.lit(1)).alias("read"),
        *[F.count_if(F.col(OUTCOME) == name).alias(name) for name in outcomes],
        *[F.count_if(F.find_in_set(F.lit(name), F.col(c.REASONS)) > 0).alias(f"reason:{name}") for name in reasons],
    ]
