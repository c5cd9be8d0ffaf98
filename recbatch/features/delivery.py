"""How files that workers make reach their place: written there by the worker, or sent through Spark.

Where driver and workers share a file system, a worker writes Parquet files into the tables' folders, and what only this
run needs into a scratch folder; they count when the driver commits them. On other storage, the same files travel as
rows, and Spark writes the tables of what is in them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

KIND, PLACE, PATH, SIZE, ROWS, CONTENT = "kind", "place", "path", "size", "rows", "content"
FILES = pa.schema(
    [
        (KIND, pa.string()),
        (PLACE, pa.int32()),
        (PATH, pa.string()),
        (SIZE, pa.int64()),
        (ROWS, pa.int64()),
        (CONTENT, pa.binary()),
    ]
)
FILES_DDL = f"{KIND} string, {PLACE} int, {PATH} string, {SIZE} bigint, {ROWS} bigint, {CONTENT} binary"


@dataclass(frozen=True)
class Delivery:
    """folders: by kind, where its files go; None where they are sent."""

    folders: Mapping[str, str] | None

    def deliver(self, kind: str, place: int, content: pa.Buffer, rows: int, path: str) -> pa.RecordBatch:
        """A row of FILES. place: a number that says what of `kind` it is. path: relative, `{}` for a new name."""
        named = path.format(uuid.uuid4())
        sent = None
        if self.folders is None:
            sent = content.to_pybytes()
        else:
            file = Path(self.folders[kind]) / named
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        row = [[kind], [place], [named], [content.size], [rows], [sent]]
        arrays = [pa.array(value, field.type) for value, field in zip(row, FILES, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=FILES)


def parquet(rows: pa.Table, coded: list[str]) -> pa.Buffer:
    """The rows as a Parquet file; `coded`: columns whose values repeat."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="snappy", use_dictionary=coded, store_schema=False, write_statistics=False)
    return sink.getvalue()


def arrow(rows: pa.RecordBatch) -> pa.Buffer:
    """The rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def read_arrow_stream(path: str | None, content: bytes | None) -> pa.Table:
    """What `arrow` has made, at `path` or as it was sent."""
    source = pa.memory_map(path) if path is not None else pa.py_buffer(content or b"")
    return pa.ipc.open_stream(source).read_all()
