"""The staged lists by bucket: what this run has written already, and which users' lists can be carried forward."""

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
    """The staged lists of earlier runs, or none, as this run sees them.

    rows: the table, None before the first run. signature: of the scorer and of what is asked of it. version: the
    transaction version of this run, which an attempt that continues a killed one shares with it.
    """

    rows: DataFrame | None
    signature: str
    version: int

    def done(self) -> set[int]:
        """Buckets that an earlier attempt at this run has committed. One without a user is never among them."""
        if self.rows is None:
            return set()
        mine = self.rows.where((F.col(c.TXN_VERSION) == self.version) & (F.col(c.SCORER_DIGEST) == self.signature))
        return {row[c.USER_BUCKET] for row in mine.select(c.USER_BUCKET).distinct().collect()}

    def reusable(self) -> bool:
        """Whether any list was made by the same scorer; else every user is scored, and nothing is compared."""
        return self.rows is not None and not self.rows.where(F.col(c.SCORER_DIGEST) == self.signature).isEmpty()

    @contextmanager
    def lists(
        self, users: DataFrame, buckets: list[int], score: Callable[[DataFrame], DataFrame]
    ) -> Iterator[DataFrame]:
        """The lists of all users of these buckets: those of changed users scored, the others carried forward.

        users: prepared ones, of all buckets. Two of the same fingerprint have the same list.
        """
        wanted = users.where(F.col(c.USER_BUCKET).isin(buckets))
        if self.rows is None or not self.reusable():
            yield score(wanted)
            return
        staged = self.rows.where(F.col(c.USER_BUCKET).isin(buckets) & (F.col(c.SCORER_DIGEST) == self.signature))
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
