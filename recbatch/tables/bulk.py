"""Commits of Parquet files that executors have written into a table's folder themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, create_table_with_add_actions

from recbatch.tables import columns as c
from recbatch.tables.contracts import arrow_schema
from recbatch.tables.schemas import TableSpec
from recbatch.tables.written import WrittenFile

NO_STATISTICS = ("delta.dataSkippingNumIndexedCols", "0")


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
    table = DeltaTable(folder)
    table.create_write_transaction(
        [*_added(files)],  # a list of removals as well, as its type has it
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
    known: bool,
    mode: Literal["append", "overwrite"],
    application: str,
    version: int,
) -> None:
    """Add files to a table, or put them in the place of all that it holds, in one marked commit.

    known: the table exists with the columns of its contract; otherwise it is made, or given these.
    Whether it has been committed before is for the caller to ask (`is_committed`), before the files are written.
    """
    partitions = list(spec.partition_by)
    marked = CommitProperties(app_transactions=[Transaction(application, version)])
    if known:
        table = DeltaTable(folder)
        schema = pa.schema(table.schema().to_arrow())
        table.create_write_transaction(list(_added(files)), mode, schema, partitions, commit_properties=marked)
    else:
        create_table_with_add_actions(
            folder,
            Schema.from_arrow(arrow_schema(spec)),
            list(_added(files)),
            mode=mode,
            partition_by=partitions,
            # Statistics of columns that nobody filters by would cost as much as writing them.
            configuration=dict([NO_STATISTICS]),
            commit_properties=marked,
        )


def make_empty(folder: str, spec: TableSpec, mode: Literal["overwrite", "ignore"]) -> None:
    """A table of the contract without rows; `overwrite` empties one that is there, and gives it these columns."""
    DeltaTable.create(
        folder,
        arrow_schema(spec),
        mode=mode,
        partition_by=list(spec.partition_by),
        configuration=dict([NO_STATISTICS]),
    )


def _added(files: Sequence[WrittenFile]) -> Iterator[AddAction]:
    now = int(time.time() * 1000)
    for file in files:
        yield AddAction(file.path, file.size, file.partition, now, True, json.dumps({"numRecords": file.rows}))
