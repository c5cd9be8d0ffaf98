"""What names a file that an executor has written. Apart from `bulk`, so that workers need not load its library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file of one partition: path relative to the table, bytes, rows, and the values of the partition."""

    path: str
    size: int
    rows: int
    partition: dict[str, str]
