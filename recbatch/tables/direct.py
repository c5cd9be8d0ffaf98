"""Rows as Parquet files that workers write into a table's folder themselves: Arrow to Parquet, a file a task.

Spark's own writer takes rows one by one, and pays some hundredths of a second for every file on top. What a worker has
written counts only when the driver commits it (see `bulk`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

from recbatch.tables import columns as c
from recbatch.tables.part_file import PartFile
from recbatch.tables.spec import TableSpec
from recbatch.tables.written import WrittenFile

_FILES_DDL = "partition string, path string, size bigint, rows bigint"
_FILES = pa.schema([("partition", pa.string()), ("path", pa.string()), ("size", pa.int64()), ("rows", pa.int64())])
# Hardly any value of these comes twice in a file, so that a dictionary would only take time.
_UNIQUE = (c.EVENT_TIME, c.RAW_RECORD)


def write_files(rows: DataFrame, spec: TableSpec, folder: str) -> list[WrittenFile]:
    """Write rows in the contract of `spec` into `folder`, which driver and workers share; returns the files.

    The table has one partition column or none: a task writes a file for each value of it.
    """
    [key] = spec.partition_by or (None,)
    stored = [name for name in spec.schema.names if name != key]
    schema = to_arrow_schema(rows.select(*stored).schema, timezone="UTC")
    repeated = [name for name in stored if name not in _UNIQUE]

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        file: PartFile | None = None
        of = ""
        for batch in batches:
            for value, part in _runs(batch, key):
                if file is not None and of != value:
                    yield _closed(file, of)
                    file = None
                of = value
                file = file or PartFile(folder, value, schema, repeated)
                file.add(part)
        if file is not None:
            yield _closed(file, of)

    ordered = rows if key is None else rows.sortWithinPartitions(key)
    return [
        WrittenFile(row["path"], row["size"], row["rows"], dict([row["partition"].split("=")] if key else []))
        for row in ordered.mapInArrow(write, _FILES_DDL).collect()
    ]


def _closed(file: PartFile, partition: str) -> pa.RecordBatch:
    """A row that names a finished file."""
    size = file.close()
    return pa.RecordBatch.from_pylist(
        [{"partition": partition, "path": file.path, "size": size, "rows": file.rows}], _FILES
    )


def _runs(rows: pa.RecordBatch, key: str | None) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of each value of `key`, which lie together, and the value as a path has it."""
    if key is None or not rows.num_rows:
        yield from [("", rows)] if rows.num_rows else []
        return
    runs: Any = pc.run_end_encode(rows.column(key))
    starts = np.append([0], runs.run_ends.to_numpy()[:-1])
    for start, stop, value in zip(starts, runs.run_ends.to_numpy(), runs.values.to_pylist(), strict=True):
        yield f"{key}={value}", rows.slice(start, stop - start)
