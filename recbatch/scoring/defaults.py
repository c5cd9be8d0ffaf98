"""What is recommended to users that the log does not know: what most users bought recently."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recbatch.tables import columns as c

EVERYONE = "all"
POPULAR = "popular"


def default_recommendations(item_features: DataFrame, item_popularity: DataFrame, k: int) -> DataFrame:
    """The k eligible items with the most users in the recent days, then in all days; ties by item_id.

    `score` is the number of recent users. Fewer than k items with a user make a shorter list.
    """
    order = Window.orderBy(F.desc(c.RECENT_POPULARITY), F.desc(c.POPULARITY), c.ITEM_ID)
    return (
        item_features.where(c.ELIGIBLE)
        .join(item_popularity, on=c.ITEM_IDX)
        .orderBy(F.desc(c.RECENT_POPULARITY), F.desc(c.POPULARITY), c.ITEM_ID)
        .limit(k)
        .select(
            F.lit(EVERYONE).alias(c.SEGMENT),
            F.row_number().over(order).alias(c.RANK),
            c.ITEM_ID,
            F.col(c.RECENT_POPULARITY).cast("float").alias(c.SCORE),
            F.lit(POPULAR).alias(c.REASON),
        )
    )
