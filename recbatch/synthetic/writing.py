"""Files of one delivery, written by the task that made their rows; a file appears under its name when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there in the end is `path`, whole, however often a task is tried."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def line_file(path: Path, header: str) -> Iterator[BinaryIO]:
    with appearing(path) as beside, beside.open("wb", buffering=1 << 20) as file:
        file.write(header.encode())
        yield file


@contextmanager
def parquet_file(path: Path, schema: pa.Schema) -> Iterator[Any]:
    with appearing(path) as beside, pq.ParquetWriter(beside, schema, compression="snappy") as writer:
        yield writer
