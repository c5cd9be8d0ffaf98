"""Commits of Parquet files that executors have written into a table's folder themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from recbatch.tables import columns as c
from recbatch.tables.schemas import TableSpec


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file of one partition: path relative to the table, bytes, rows, and the values of the partition."""

    path: str
    size: int
    rows: int
    partition: dict[str, str]


def replace_buckets_by_files(
    folder: str, spec: TableSpec, files: Sequence[WrittenFile], buckets: Sequence[int]
) -> None:
    """In one commit, put files in the place of all that some `user_bucket`s of an existing table hold.

    Until then no reader sees the files; those of a task that failed, or of a run that was killed, are never seen, and
    Delta's VACUUM removes them.
    """
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(file.path, file.size, file.partition, now, True, json.dumps({"numRecords": file.rows}))
        for file in files
    ]
    table = DeltaTable(folder)
    table.create_write_transaction(
        actions,
        mode="overwrite",
        schema=pa.schema(table.schema().to_arrow()),
        partition_by=list(spec.partition_by),
        partition_filters=[(c.USER_BUCKET, "in", [str(bucket) for bucket in buckets])],
    )
