"""Marks every row as accepted, rejected or one of two kinds of duplicate, in one sort, whatever the partitioning."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.cleaning import rules
from recbatch.tables import columns as c

OUTCOME = "outcome"
ACCEPTED = "accepted"
REJECTED = "rejected"
EXACT_DUPLICATE = "exact_duplicate"
KEY_DUPLICATE = "key_duplicate"
OUTCOMES = (ACCEPTED, REJECTED, EXACT_DUPLICATE, KEY_DUPLICATE)


def mark_outcome(
    rows: DataFrame, key: Sequence[str], content: Sequence[str], *, prefer: Sequence[Column] = ()
) -> DataFrame:
    """Add `outcome`: of rows equal in `key` the first by `prefer`, then by content, is accepted.

    Content is ordered column by column, smaller values first and missing ones last. A later row that equals its
    predecessor in all of `content` is an exact duplicate, any other a key duplicate. Rows with `reasons` are rejected
    and are nobody's duplicate.
    """
    rejected = F.col(c.REASONS) != 0
    # Rejected rows often share an empty key: a salt keeps them from meeting in one task.
    salt = F.when(rejected, F.monotonically_increasing_id())
    values = F.struct(*[F.col(name) for name in content])
    by_content = [F.asc_nulls_last(name) for name in (*content, c.SOURCE_FILE)]
    ordered = Window.partitionBy(*key, "_salt").orderBy(*prefer, *by_content)
    place, exact = F.row_number().over(ordered), F.lag(values).over(ordered).eqNullSafe(values)
    outcome = F.when(place == 1, ACCEPTED).when(exact, EXACT_DUPLICATE).otherwise(KEY_DUPLICATE)
    return (
        rows.withColumn("_salt", salt).withColumn(OUTCOME, F.when(rejected, REJECTED).otherwise(outcome)).drop("_salt")
    )


def outcome_counts(codes: Sequence[str]) -> list[Column]:
    """Aggregates for `observe`: rows read, rows of each outcome, and rows that each reason applied to."""
    return [
        F.count(F.lit(1)).alias("read"),
        *[F.count_if(F.col(OUTCOME) == name).alias(name) for name in OUTCOMES],
        *reason_counts(codes),
    ]


def reason_counts(codes: Sequence[str]) -> list[Column]:
    """Aggregates for `observe`: rows that each reason applied to, as `reason:<code>`."""
    return [F.count_if(rules.has(F.col(c.REASONS), bit)).alias(f"reason:{code}") for bit, code in enumerate(codes)]
