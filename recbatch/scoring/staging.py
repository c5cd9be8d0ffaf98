"""Which lists of an earlier run can be carried forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.tables import columns as c

_PREVIOUS = "previous_fingerprint"


@dataclass(frozen=True)
class Staging:
    """The staged lists of earlier runs.

    read: gives the table. comparable: whether they were made by the same scorer; else every user is scored.
    """

    read: Callable[[], DataFrame]
    comparable: bool

    @contextmanager
    def lists(
        self, users: DataFrame, buckets: list[int], score: Callable[[DataFrame], DataFrame]
    ) -> Iterator[DataFrame]:
        """The lists of all users of these buckets: those of changed users scored, the others carried forward.

        users: prepared ones, of all buckets.
        """
        wanted = users.where(F.col(c.USER_BUCKET).isin(buckets))
        if not self.comparable:
            yield score(wanted)
            return
        staged = self.read().where(F.col(c.USER_BUCKET).isin(buckets))
        before = staged.where(F.col(c.RANK) == 1).select(c.USER_ID, F.col(c.USER_FINGERPRINT).alias(_PREVIOUS))
        changes = (
            wanted.select(c.USER_ID, c.USER_FINGERPRINT)
            .join(before, on=c.USER_ID, how="full")
            .where(~F.col(c.USER_FINGERPRINT).eqNullSafe(F.col(_PREVIOUS)))
            .select(c.USER_ID)
            .persist(StorageLevel.MEMORY_AND_DISK)
        )
        try:
            scored = score(wanted.join(changes, on=c.USER_ID, how="left_semi"))
            kept = staged.join(changes, on=c.USER_ID, how="left_anti").select(*scored.columns)
            yield kept.unionByName(scored)
        finally:
            changes.unpersist()
