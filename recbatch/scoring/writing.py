"""How the lists of some buckets get into the staged tables: by the workers themselves, or by Spark."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import ScoringSection
from recbatch.scoring.direct import Destination, write_lists
from recbatch.scoring.recommend import recommend
from recbatch.scoring.staging import Staging
from recbatch.scoring.worker import AUDIENCE_RANK, ChosenItems, Meters, Request, Shipped
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.bulk import files_by_bucket, replace_buckets_by_files
from recbatch.tables.store import TableStore


@dataclass(frozen=True)
class ListWriter:
    """Scores users and commits their lists, a group of buckets at a time.

    The parts of audiences are committed first: a bucket whose lists are there needs no second look.
    """

    tables: TableStore
    section: ScoringSection
    shipped: Shipped
    meters: Meters
    version: int
    audience: ChosenItems | None
    staging: Staging

    def write(self, users: DataFrame, group: list[int], replaced: list[int], tasks: int) -> None:
        """Score the users of `group` and put their lists in the place of all that the buckets `replaced` hold.

        users: prepared ones, of all buckets.
        """
        if self._destination is None:
            self._write_by_spark(users, group, replaced, tasks)
            return
        some, section, destination = users.where(F.col(c.USER_BUCKET).isin(group)), self.section, self._destination
        request = Request(section.k, section.filter_viewed, section.batch_users, audience=self.audience)
        files = write_lists(some, self.shipped, request, tasks, self.meters, destination)
        parts, lists = destination.audience_parts, destination.lists
        if parts is not None:
            replace_buckets_by_files(parts, schemas.STAGED_AUDIENCE_PARTS, files.get(parts, []), replaced)
        replace_buckets_by_files(lists, schemas.STAGED_RECOMMENDATIONS, files.get(lists, []), replaced)

    @cached_property
    def _destination(self) -> Destination | None:
        """Where workers can write themselves: a pass makes final lists, and the folder is within their reach."""
        lists = self.tables.local_folder(schemas.STAGED_RECOMMENDATIONS)
        if lists is None or self.section.item_shards > 1:
            return None
        parts = self.tables.local_folder(schemas.STAGED_AUDIENCE_PARTS) if self.audience else None
        previous = files_by_bucket(lists) if self.staging.comparable else None
        return Destination(lists, parts, self.version, previous)

    def _write_by_spark(self, users: DataFrame, group: list[int], replaced: list[int], tasks: int) -> None:
        score = partial(
            recommend,
            shipped=self.shipped,
            section=self.section,
            partitions=tasks,
            meters=self.meters,
            audience=self.audience,
        )
        with self.staging.lists(users, group, score) as scored:
            rows = scored.withColumn(c.TXN_VERSION, F.lit(self.version).cast("long"))
            if self.audience is None:
                self.tables.replace_buckets(schemas.STAGED_RECOMMENDATIONS, rows, replaced)
                return
            rows = rows.persist(StorageLevel.DISK_ONLY)  # one pass for two tables
            try:
                of_audience = F.col(c.RANK) == AUDIENCE_RANK
                self.tables.replace_buckets(schemas.STAGED_AUDIENCE_PARTS, rows.where(of_audience), replaced)
                self.tables.replace_buckets(schemas.STAGED_RECOMMENDATIONS, rows.where(~of_audience), replaced)
            finally:
                rows.unpersist()
