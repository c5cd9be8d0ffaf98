"""Scoring whose workers write the tables' files themselves; the driver only commits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from recbatch.scoring.carrying import Carrier
from recbatch.scoring.files import FILES_DDL, FOLDER, PATH, ROWS, SIZE, BucketFile, by_bucket
from recbatch.scoring.worker import Meters, Request, Shipped, Task, counted
from recbatch.tables import columns as c
from recbatch.tables.written import WrittenFile


@dataclass(frozen=True)
class Destination:
    """Where workers write.

    lists, audience_parts: folders of the tables; the second is None where no audience is asked for. version: of the
    run's transaction. previous: by bucket, the files of lists to carry forward; None where every user is scored.
    """

    lists: str
    audience_parts: str | None
    version: int
    previous: Mapping[int, Sequence[str]] | None


def write_lists(
    users: DataFrame, shipped: Shipped, request: Request, partitions: int, meters: Meters, destination: Destination
) -> dict[str, list[WrittenFile]]:
    """The rows of `recommend`, and those carried forward, in files; by folder, what names the files.

    users: read from a table that is partitioned by bucket, and not shuffled since, so that the rows of a bucket come
    together.
    """
    files = users.mapInArrow(_write_partition(shipped, request, meters, destination), FILES_DDL)
    with _scan_partitions(users.sparkSession, partitions):
        rows = files.collect()
    written: dict[str, list[WrittenFile]] = {}
    for row in rows:
        partition = {c.USER_BUCKET: str(row[c.USER_BUCKET]), c.TXN_VERSION: str(destination.version)}
        written.setdefault(row[FOLDER], []).append(WrittenFile(row[PATH], row[SIZE], row[ROWS], partition))
    return written


def _write_partition(
    shipped: Shipped, request: Request, meters: Meters, destination: Destination
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: users, those of a bucket together, to rows of FILES."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = Task.begin(shipped, request, meters)
        if destination.previous is None:
            yield from _write_lists(task.lists(counted(batches, meters)), destination, meters)
        else:
            carrier = Carrier(destination.previous, request.batch_users, destination.lists, destination.version)
            yield from _write_lists(task.lists(carrier.changed(counted(batches, meters))), destination, meters)
            yield from carrier.written
        audience = task.audience().sort_by([(c.USER_BUCKET, "ascending"), (c.ITEM_ID, "ascending")]).combine_chunks()
        for batch in audience.to_batches():
            for bucket, rows in by_bucket(batch):
                file = BucketFile.of_audience(str(destination.audience_parts), bucket, destination.version)
                file.add(rows)
                yield file.close()

    return write


def _write_lists(
    batches: Iterable[pa.RecordBatch], destination: Destination, meters: Meters
) -> Iterator[pa.RecordBatch]:
    """A file for each bucket, as long as its rows come together."""
    file: BucketFile | None = None
    for lists in batches:
        for bucket, rows in by_bucket(lists):
            if file is not None and file.bucket != bucket:
                yield file.close()
                meters.writing.add(file.seconds)
                file = None
            file = file or BucketFile.of_lists(destination.lists, bucket, destination.version)
            file.add(rows)
    if file is not None:
        yield file.close()
        meters.writing.add(file.seconds)


@contextmanager
def _scan_partitions(spark: SparkSession, partitions: int) -> Iterator[None]:
    """Spark packs the files of a scan into about as many tasks; it has no setting of a single scan for that."""
    name = "spark.sql.files.minPartitionNum"
    before = spark.conf.get(name, None)
    spark.conf.set(name, str(partitions))
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, before)
