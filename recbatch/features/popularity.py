"""How many users took an item, in all the past and in its last days: a prior of the model and a baseline of its own."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.tables import columns as c


def item_popularity(behaviours: DataFrame, as_of: dt.datetime, recent_days: int) -> DataFrame:
    """Distinct users an item, ever and in the `recent_days` before `as_of`; input as from `user_sequences.behaviours`.

    Users and not events: one user who buys an item every day says less about the next user than many who bought once.
    """
    recent = int(as_of.timestamp()) - recent_days * 86_400
    last = behaviours.groupBy(c.ITEM_IDX, c.USER_BUCKET, c.USER_ID).agg(F.max(c.EVENT_TIME).alias("last"))
    return last.groupBy(c.ITEM_IDX).agg(
        F.count(F.lit(1)).alias(c.POPULARITY), F.count_if(F.col("last") >= recent).alias(c.RECENT_POPULARITY)
    )
