"""How the lists of some buckets get into the staged tables: by the workers themselves, or by Spark."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import ScoringSection
from recbatch.scoring.files import Folders
from recbatch.scoring.recommend import recommend, write_lists
from recbatch.scoring.staging import Staging
from recbatch.scoring.worker import AUDIENCE_RANK, ChosenItems, Meters, Shipped
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.bulk import replace_buckets_by_files
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
        if self._folders is None:
            self._write_by_spark(users, group, replaced, tasks)
            return
        some = users.where(F.col(c.USER_BUCKET).isin(group))
        files = write_lists(
            some, self.shipped, self.section, tasks, self.meters, self._folders, self.version, self.audience
        )
        parts = self._folders.audience_parts
        if parts is not None:
            replace_buckets_by_files(parts, schemas.STAGED_AUDIENCE_PARTS, files.get(parts, []), replaced)
        lists = self._folders.lists
        replace_buckets_by_files(lists, schemas.STAGED_RECOMMENDATIONS, files.get(lists, []), replaced)

    @cached_property
    def _folders(self) -> Folders | None:
        """Where workers can write themselves: the lists are final, and the folder is within their reach."""
        if self.staging.comparable or self.section.item_shards > 1:
            return None
        lists = self.tables.local_folder(schemas.STAGED_RECOMMENDATIONS)
        if lists is None:
            return None
        return Folders(lists, self.tables.local_folder(schemas.STAGED_AUDIENCE_PARTS) if self.audience else None)

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
