"""Events as Parquet files that workers write into the table's folder: Arrow to Parquet, a file a date and task.

Spark's own writer takes rows one by one, and pays some hundredths of a second for every file on top. What a worker has
written counts only when the driver commits it (see `tables.bulk`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

from recbatch.tables import columns as c
from recbatch.tables.schemas import EVENTS
from recbatch.tables.written import WrittenFile

_FILES_DDL = f"{c.EVENT_DATE} date, path string, size bigint, rows bigint"
_FILES = pa.schema([(c.EVENT_DATE, pa.date32()), ("path", pa.string()), ("size", pa.int64()), ("rows", pa.int64())])
_EPOCH = dt.date(1970, 1, 1)
_ROW_GROUP = 1 << 17
# Hardly any value of these comes twice in a file, so that a dictionary would only take time.
_UNIQUE = (c.EVENT_TIME,)


def write_by_date(events: DataFrame, folder: str) -> list[WrittenFile]:
    """Write rows with the columns of `events` into `folder`, which driver and workers share; returns the files."""
    stored = [name for name in EVENTS.schema.names if name != c.EVENT_DATE]
    schema = to_arrow_schema(events.select(*stored).schema, timezone="UTC")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        file: DateFile | None = None
        for batch in batches:
            for day, rows in _by_date(batch):
                if file is not None and file.day != day:
                    yield file.close()
                    file = None
                file = file or DateFile(folder, day, schema)
                file.add(rows)
        if file is not None:
            yield file.close()

    rows = events.select(*EVENTS.schema.names).sortWithinPartitions(c.EVENT_DATE).mapInArrow(write, _FILES_DDL)
    return [
        WrittenFile(row["path"], row["size"], row["rows"], {c.EVENT_DATE: f"{row[c.EVENT_DATE]:%Y-%m-%d}"})
        for row in rows.collect()
    ]


def _by_date(rows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each date (days since 1970), which lie together."""
    days = rows.column(rows.schema.get_field_index(c.EVENT_DATE)).cast(pa.int32()).to_numpy()
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    for start, stop in zip(starts, np.append(starts[1:], len(days)), strict=True):
        yield int(days[start]), rows.slice(start, stop - start)


class DateFile:
    """A Parquet file with rows of one date."""

    def __init__(self, folder: str, day: int, schema: pa.Schema) -> None:
        self.day, self._schema, self._folder = day, schema, Path(folder)
        date = _EPOCH + dt.timedelta(days=day)
        self._path = f"{c.EVENT_DATE}={date:%Y-%m-%d}/part-{uuid.uuid4()}.snappy.parquet"
        place = self._folder / self._path
        place.parent.mkdir(parents=True, exist_ok=True)
        repeated = [name for name in schema.names if name not in _UNIQUE]
        self._writer = pq.ParquetWriter(
            place, schema, compression="snappy", use_dictionary=repeated, store_schema=False
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Write the columns that are stored; a row group is written once there is enough for one."""
        self._waiting.append(rows.select(self._schema.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting).cast(self._schema)
        self._writer.write_table(table, row_group_size=_ROW_GROUP)
        self._rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0

    def close(self) -> pa.RecordBatch:
        """Finish the file; a row that names it."""
        if self._waiting:
            self._flush()
        self._writer.close()
        size = (self._folder / self._path).stat().st_size
        row = {c.EVENT_DATE: _EPOCH + dt.timedelta(days=self.day), "path": self._path, "size": size, "rows": self._rows}
        return pa.RecordBatch.from_pylist([row], _FILES)
