"""A Parquet file that a worker writes into a table's folder, from Arrow and without Spark's writer.

Spark's writer takes the rows one by one, and costs more than what makes them. What a worker has written counts only
when the driver commits it (see `bulk`). Apart from `bulk`, so that workers need not load its library.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 1 << 17


class PartFile:
    """Rows of one partition, which `partition` names as the path does ("": there are none).

    `repeated` columns get dictionaries.

    path: relative to the folder. rows, seconds: written so far, and spent on it.
    """

    def __init__(self, folder: str, partition: str, schema: pa.Schema, repeated: Sequence[str]) -> None:
        name = f"part-{uuid.uuid4()}.snappy.parquet"
        self.path = f"{partition}/{name}" if partition else name
        self.rows, self.seconds = 0, 0.0
        self._place, self._schema = Path(folder) / self.path, schema
        self._place.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(
            self._place, schema, compression="snappy", use_dictionary=list(repeated), store_schema=False
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Write the columns of the schema; a row group at a time, of which a whole partition may have many."""
        self._waiting.append(rows.select(self._schema.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= ROW_GROUP:
            self._flush()

    def close(self) -> int:
        """Finish the file; its size in bytes."""
        if self._waiting:
            self._flush()
        self._writer.close()
        return self._place.stat().st_size

    def _flush(self) -> None:
        began = time.perf_counter()
        table = pa.Table.from_batches(self._waiting).cast(self._schema)
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self.rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0
        self.seconds += time.perf_counter() - began
