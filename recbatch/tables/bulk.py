"""Commits of Parquet files that executors have written into a table's folder themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction, RemoveAction

from recbatch.tables import columns as c
from recbatch.tables.schemas import TableSpec
from recbatch.tables.written import WrittenFile


def files_by_bucket(folder: str, version: int | None = None) -> dict[int, list[str]]:
    """Paths of the files of a table partitioned by `user_bucket`, at `version` or the latest one."""
    actions = DeltaTable(folder, version=version).get_add_actions(flatten=True)
    files: dict[int, list[str]] = {}
    for path, bucket in zip(
        actions.column("path").to_pylist(), actions.column(f"partition.{c.USER_BUCKET}").to_pylist(), strict=True
    ):
        files.setdefault(int(bucket), []).append(f"{folder}/{path}")
    return files


def replace_buckets_by_files(
    folder: str, spec: TableSpec, files: Sequence[WrittenFile], buckets: Sequence[int]
) -> None:
    """In one commit, put files in the place of all that some `user_bucket`s of an existing table hold.

    Until then no reader sees the files; those of a task that failed, or of a run that was killed, are never seen, and
    Delta's VACUUM removes them.
    """
    _replace(folder, spec, files, [(c.USER_BUCKET, "in", [str(bucket) for bucket in buckets])])


def replace_by_files(folder: str, spec: TableSpec, files: Sequence[WrittenFile]) -> None:
    """As `replace_buckets_by_files`, for the whole table."""
    _replace(folder, spec, files, None)


def _replace(
    folder: str, spec: TableSpec, files: Sequence[WrittenFile], partitions: list[tuple[str, str, list[str]]] | None
) -> None:
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
        partition_filters=partitions,
    )


def is_committed(folder: str, application: str, version: int) -> bool:
    """Whether the table has committed this transaction, or a later one of the application."""
    known = DeltaTable(folder).transaction_version(application) if DeltaTable.is_deltatable(folder) else None
    return known is not None and known >= version


def commit_files(
    folder: str,
    spec: TableSpec,
    files: Sequence[WrittenFile],
    *,
    mode: Literal["append", "overwrite"],
    application: str,
    version: int,
) -> None:
    """Add files to an existing table, or put them in the place of all that it holds, in one marked commit.

    Whether it has been committed before is for the caller to ask (`is_committed`), before the files are written.
    """
    table = DeltaTable(folder)
    table.create_write_transaction(
        list(_added(files)),
        mode=mode,
        schema=pa.schema(table.schema().to_arrow()),
        partition_by=list(spec.partition_by),
        commit_properties=CommitProperties(app_transactions=[Transaction(application, version)]),
    )


def _added(files: Sequence[WrittenFile]) -> Iterator[AddAction]:
    now = int(time.time() * 1000)
    for file in files:
        yield AddAction(file.path, file.size, file.partition, now, True, json.dumps({"numRecords": file.rows}))
