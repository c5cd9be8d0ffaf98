"""Lists as Parquet files that workers write into the table's folder: Arrow to Parquet, without a detour over the JVM.

Spark's own writer takes the rows one by one and needs several times as long as the scoring itself. What a worker has
written counts only when the driver commits it (see `tables.bulk`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbatch.scoring.worker import LISTS, Meters, Request, Shipped, score_partition
from recbatch.tables import columns as c

PATH, SIZE, ROWS = "path", "size", "rows"
FILES = pa.schema([(c.USER_BUCKET, pa.int32()), (PATH, pa.string()), (SIZE, pa.int64()), (ROWS, pa.int64())])
FILES_DDL = f"{c.USER_BUCKET} int, {PATH} string, {SIZE} bigint, {ROWS} bigint"
_STORED = pa.schema([field for field in LISTS if field.name != c.USER_BUCKET])
_ROW_GROUP = 1 << 18
_REPEATED = [c.USER_ID, c.REASON, c.USER_FINGERPRINT]  # the others hardly repeat within a file


def write_partition(
    shipped: Shipped, request: Request, meters: Meters, folder: str, version: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: users, those of a bucket together, to rows of FILES; one a bucket and task."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        file: _BucketFile | None = None
        for lists in score_partition(shipped, request, meters)(batches):
            for bucket, part in _by_bucket(lists):
                if file is not None and file.bucket != bucket:
                    yield file.close()
                    file = None
                file = file or _BucketFile(Path(folder), bucket, version)
                file.add(part)
        if file is not None:
            yield file.close()

    return write


class _BucketFile:
    def __init__(self, folder: Path, bucket: int, version: int) -> None:
        self.bucket = bucket
        self._folder = folder
        self._path = f"{c.USER_BUCKET}={bucket}/{c.TXN_VERSION}={version}/part-{uuid.uuid4()}.snappy.parquet"
        (folder / self._path).parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(folder / self._path, _STORED, compression="snappy", use_dictionary=_REPEATED)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._rows = 0

    def add(self, lists: pa.RecordBatch) -> None:
        # A row group a call would be many small ones; a whole bucket in memory would grow with the number of users.
        self._waiting.append(lists)
        self._waiting_rows += lists.num_rows
        if self._waiting_rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, _STORED), row_group_size=_ROW_GROUP)
        self._rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0

    def close(self) -> pa.RecordBatch:
        if self._waiting:
            self._flush()
        self._writer.close()
        size = (self._folder / self._path).stat().st_size
        return pa.RecordBatch.from_pylist(
            [{c.USER_BUCKET: self.bucket, PATH: self._path, SIZE: size, ROWS: self._rows}], FILES
        )


def _by_bucket(lists: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each bucket; those of a bucket lie together."""
    buckets = lists.column(c.USER_BUCKET).to_numpy()
    stored = lists.select(_STORED.names)
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(buckets)), strict=True):
        yield int(buckets[start]), stored.slice(start, stop - start)
