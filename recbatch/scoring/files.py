"""Lists as Parquet files that workers write into a table's folder, a file a bucket."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recbatch.scoring.worker import LISTS
from recbatch.tables import columns as c
from recbatch.tables.part_file import PartFile

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
_REPEATED = [c.USER_ID, c.REASON, c.USER_FINGERPRINT]  # the others hardly repeat within a file


class BucketFile:
    """A Parquet file with rows of one bucket."""

    def __init__(self, folder: str, bucket: int, version: int, schema: pa.Schema, repeated: list[str]) -> None:
        self.bucket = bucket
        self._folder = folder
        partition = f"{c.USER_BUCKET}={bucket}/{c.TXN_VERSION}={version}"
        self._file = PartFile(folder, partition, schema, repeated)

    @property
    def seconds(self) -> float:
        """Spent on writing."""
        return self._file.seconds

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
        self._file.add(rows)

    def close(self) -> pa.RecordBatch:
        """Finish the file; a row of FILES."""
        size, file = self._file.close(), self._file
        row = {c.USER_BUCKET: self.bucket, FOLDER: self._folder, PATH: file.path, SIZE: size, ROWS: file.rows}
        return pa.RecordBatch.from_pylist([row], FILES)


def by_bucket(rows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each bucket; those of a bucket lie together."""
    buckets = rows.column(c.USER_BUCKET).to_numpy()
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(buckets)), strict=True):
        yield int(buckets[start]), rows.slice(start, stop - start)
