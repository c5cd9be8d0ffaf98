"""Events as Parquet files that workers write into the table's folder: Arrow to Parquet, a file a date and task.

Spark's own writer takes rows one by one, and pays some hundredths of a second for every file on top. What a worker has
written counts only when the driver commits it (see `tables.bulk`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

from recbatch.tables import columns as c
from recbatch.tables.part_file import PartFile
from recbatch.tables.schemas import EVENTS
from recbatch.tables.written import WrittenFile

_FILES_DDL = f"{c.EVENT_DATE} date, path string, size bigint, rows bigint"
_FILES = pa.schema([(c.EVENT_DATE, pa.date32()), ("path", pa.string()), ("size", pa.int64()), ("rows", pa.int64())])
_EPOCH = dt.date(1970, 1, 1)
# Hardly any value of these comes twice in a file, so that a dictionary would only take time.
_UNIQUE = (c.EVENT_TIME,)


def write_by_date(events: DataFrame, folder: str) -> list[WrittenFile]:
    """Write rows with the columns of `events` into `folder`, which driver and workers share; returns the files."""
    stored = [name for name in EVENTS.schema.names if name != c.EVENT_DATE]
    schema = to_arrow_schema(events.select(*stored).schema, timezone="UTC")
    repeated = [name for name in stored if name not in _UNIQUE]

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        file: PartFile | None = None
        of: dt.date | None = None
        for batch in batches:
            for day, rows in _by_date(batch):
                if file is not None and of != day:
                    yield _closed(file, of)
                    file = None
                of = day
                file = file or PartFile(folder, f"{c.EVENT_DATE}={day:%Y-%m-%d}", schema, repeated)
                file.add(rows)
        if file is not None:
            yield _closed(file, of)

    rows = events.select(*EVENTS.schema.names).sortWithinPartitions(c.EVENT_DATE).mapInArrow(write, _FILES_DDL)
    return [
        WrittenFile(row["path"], row["size"], row["rows"], {c.EVENT_DATE: f"{row[c.EVENT_DATE]:%Y-%m-%d}"})
        for row in rows.collect()
    ]


def _closed(file: PartFile, day: dt.date | None) -> pa.RecordBatch:
    """A row that names a finished file."""
    size = file.close()
    return pa.RecordBatch.from_pylist([{c.EVENT_DATE: day, "path": file.path, "size": size, "rows": file.rows}], _FILES)


def _by_date(rows: pa.RecordBatch) -> Iterator[tuple[dt.date, pa.RecordBatch]]:
    """The rows of each date, which lie together."""
    days = rows.column(rows.schema.get_field_index(c.EVENT_DATE)).cast(pa.int32()).to_numpy()
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    for start, stop in zip(starts, np.append(starts[1:], len(days)), strict=True):
        yield _EPOCH + dt.timedelta(days=int(days[start])), rows.slice(start, stop - start)
