"""Rows as Parquet files that workers write into a table's folder: Arrow to Parquet, without a detour over the JVM.

Spark's own writer takes the rows one by one and needs several times as long as the scoring itself. What a worker has
written counts only when the driver commits it (see `tables.bulk`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recbatch.scoring.worker import LISTS
from recbatch.tables import columns as c

FOLDER, PATH, SIZE, ROWS = "folder", "path", "size", "rows"
FILES = pa.schema(
    [(FOLDER, pa.string()), (c.USER_BUCKET, pa.int32()), (PATH, pa.string()), (SIZE, pa.int64()), (ROWS, pa.int64())]
)
FILES_DDL = f"{FOLDER} string, {c.USER_BUCKET} int, {PATH} string, {SIZE} bigint, {ROWS} bigint"
CODED = [c.USER_ID, c.REASON]
_CODED = pa.dictionary(pa.int32(), pa.string())
_STORED = pa.schema([field for field in LISTS if field.name != c.USER_BUCKET])
_STORED_AUDIENCE = pa.schema([LISTS.field(name) for name in (c.ITEM_ID, c.SCORE, c.USER_ID)])
# Rows that are read to be written again: what repeats stays in its dictionary on the way.
_AGAIN = pa.schema([pa.field(f.name, _CODED if f.name in CODED else f.type) for f in _STORED])
_ROW_GROUP = 1 << 17
_REPEATED = [c.USER_ID, c.REASON, c.USER_FINGERPRINT]  # the others hardly repeat within a file


class BucketFile:
    """A Parquet file with rows of one bucket."""

    def __init__(self, folder: str, bucket: int, version: int, schema: pa.Schema, repeated: list[str]) -> None:
        self.bucket = bucket
        self._folder, self._schema = Path(folder), schema
        self._path = f"{c.USER_BUCKET}={bucket}/{c.TXN_VERSION}={version}/part-{uuid.uuid4()}.snappy.parquet"
        place = self._folder / self._path
        place.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(
            place, schema, compression="snappy", use_dictionary=repeated, store_schema=False
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._rows = 0
        self.seconds = 0.0  # spent on writing

    @classmethod
    def of_lists(cls, folder: str, bucket: int, version: int) -> BucketFile:
        return cls(folder, bucket, version, _STORED, _REPEATED)

    @classmethod
    def of_carried_lists(cls, folder: str, bucket: int, version: int) -> BucketFile:
        """For rows that were read with the columns CODED as dictionaries."""
        return cls(folder, bucket, version, _AGAIN, _REPEATED)

    @classmethod
    def of_audience(cls, folder: str, bucket: int, version: int) -> BucketFile:
        return cls(folder, bucket, version, _STORED_AUDIENCE, [c.ITEM_ID])

    def add(self, rows: pa.RecordBatch) -> None:
        """Write the columns that are stored."""
        # A row group a call would be many small ones; a whole bucket in memory would grow with the number of users.
        self._waiting.append(rows.select(self._schema.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        began = time.perf_counter()
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=_ROW_GROUP)
        self._rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0
        self.seconds += time.perf_counter() - began

    def close(self) -> pa.RecordBatch:
        """Finish the file; a row of FILES."""
        if self._waiting:
            self._flush()
        self._writer.close()
        size = (self._folder / self._path).stat().st_size
        file = {c.USER_BUCKET: self.bucket, FOLDER: str(self._folder), PATH: self._path, SIZE: size, ROWS: self._rows}
        return pa.RecordBatch.from_pylist([file], FILES)


def by_bucket(rows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each bucket; those of a bucket lie together."""
    buckets = rows.column(c.USER_BUCKET).to_numpy()
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(buckets)), strict=True):
        yield int(buckets[start]), rows.slice(start, stop - start)
