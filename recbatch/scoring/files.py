"""Lists as Parquet files that workers write into the table's folder: Arrow to Parquet, without a detour over the JVM.

Spark's own writer takes the rows one by one and needs several times as long as the scoring itself. What a worker has
written counts only when the driver commits it (see `tables.bulk`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbatch.scoring.worker import LISTS, Meters, Request, Shipped, Task
from recbatch.tables import columns as c

FOLDER, PATH, SIZE, ROWS = "folder", "path", "size", "rows"
FILES = pa.schema(
    [(FOLDER, pa.string()), (c.USER_BUCKET, pa.int32()), (PATH, pa.string()), (SIZE, pa.int64()), (ROWS, pa.int64())]
)
FILES_DDL = f"{FOLDER} string, {c.USER_BUCKET} int, {PATH} string, {SIZE} bigint, {ROWS} bigint"
_STORED = pa.schema([field for field in LISTS if field.name != c.USER_BUCKET])
_STORED_AUDIENCE = pa.schema([LISTS.field(name) for name in (c.ITEM_ID, c.SCORE, c.USER_ID)])
_ROW_GROUP = 1 << 18
_REPEATED = [c.USER_ID, c.REASON, c.USER_FINGERPRINT]  # the others hardly repeat within a file


@dataclass(frozen=True)
class Folders:
    """Of the tables of lists and, where audiences are asked for, of their parts."""

    lists: str
    audience_parts: str | None


def write_partition(
    shipped: Shipped, request: Request, meters: Meters, folders: Folders, version: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: users, those of a bucket together, to rows of FILES; one a table, bucket and task."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task, file = Task.begin(shipped, request, meters), None
        for lists in task.lists(batches):
            for bucket, part in _by_bucket(lists):
                if file is not None and file.bucket != bucket:
                    yield file.close()
                    file = None
                file = file or _BucketFile(folders.lists, bucket, version, _STORED, _REPEATED)
                file.add(part)
        if file is not None:
            yield file.close()
        audience = task.audience().sort_by([(c.USER_BUCKET, "ascending"), (c.ITEM_ID, "ascending")]).combine_chunks()
        for batch in audience.to_batches():
            for bucket, part in _by_bucket(batch):
                file = _BucketFile(str(folders.audience_parts), bucket, version, _STORED_AUDIENCE, [c.ITEM_ID])
                file.add(part.select(_STORED_AUDIENCE.names))
                yield file.close()

    return write


class _BucketFile:
    def __init__(self, folder: str, bucket: int, version: int, schema: pa.Schema, repeated: list[str]) -> None:
        self.bucket = bucket
        self._folder, self._schema = Path(folder), schema
        self._path = f"{c.USER_BUCKET}={bucket}/{c.TXN_VERSION}={version}/part-{uuid.uuid4()}.snappy.parquet"
        place = self._folder / self._path
        place.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(place, schema, compression="snappy", use_dictionary=repeated)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._rows = 0

    def add(self, lists: pa.RecordBatch) -> None:
        # A row group a call would be many small ones; a whole bucket in memory would grow with the number of users.
        self._waiting.append(lists)
        self._waiting_rows += lists.num_rows
        if self._waiting_rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=_ROW_GROUP)
        self._rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0

    def close(self) -> pa.RecordBatch:
        if self._waiting:
            self._flush()
        self._writer.close()
        size = (self._folder / self._path).stat().st_size
        file = {c.USER_BUCKET: self.bucket, FOLDER: str(self._folder), PATH: self._path, SIZE: size, ROWS: self._rows}
        return pa.RecordBatch.from_pylist([file], FILES)


def _by_bucket(lists: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each bucket; those of a bucket lie together."""
    buckets = lists.column(c.USER_BUCKET).to_numpy()
    stored = lists.select(_STORED.names)
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(buckets)), strict=True):
        yield int(buckets[start]), stored.slice(start, stop - start)
