"""Reading and writing the Delta tables of one warehouse. Nothing else in the project touches a table's path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa
from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable as DeltaTableHandle
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake import Transaction as Marker
from deltalake.exceptions import CommitFailedError, DeltaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.errors import InputContractError, UsageError
from recbatch.tables import columns as c
from recbatch.tables.active import read_active_files
from recbatch.tables.bulk import NO_STATISTICS, commit_files, is_committed, make_empty
from recbatch.tables.contracts import arrow_schema, completed, in_contract
from recbatch.tables.direct import write_files
from recbatch.tables.files import file_system, hadoop_path, java_cause
from recbatch.tables.schemas import TableSpec


@dataclass(frozen=True)
class Transaction:
    """What makes a write idempotent: Delta skips a (application, version) that it has already committed."""

    application: str
    version: int


class TableStore:
    """The tables under `root`, each at `<root>/<table>`."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.root = root.rstrip("/")

    def path(self, spec: TableSpec) -> str:
        return f"{self.root}/{spec.name}"

    def version(self, spec: TableSpec) -> int | None:
        """The latest committed version, or None where the table does not exist.

        Listing the log's names is enough for that; loading the table's state would start a Spark job.
        """
        log = hadoop_path(self.spark, f"{self.path(spec)}/_delta_log")
        system = file_system(self.spark, log)
        if not system.exists(log):
            return None
        names = (status.getPath().getName() for status in system.listStatus(log))
        return max((int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()), default=None)

    def read(self, spec: TableSpec, version: int | None = None) -> DataFrame:
        """The table as a DataFrame, at `version` or the latest; what an older release did not write is empty.

        Raises:
            InputContractError: the table or that version of it does not exist.
        """
        wanted = self.version(spec) if version is None else version
        if wanted is None:
            raise InputContractError(
                f"table '{spec.name}' does not exist in {self.root}",
                remedy="run the stage that writes it first: docs/tables.md names it",
            )
        folder = self.local_folder(spec)
        try:
            found = None if folder is None else read_active_files(self.spark, folder, wanted)
            found = found or self.spark.read.format("delta").option("versionAsOf", wanted).load(self.path(spec))
            return completed(spec, found)
        except (AnalysisException, DeltaError) as error:
            raise InputContractError(f"table '{spec.name}' cannot be read at version {version}: {error}") from error

    def replace(self, spec: TableSpec, rows: DataFrame, transaction: Transaction) -> int:
        """Replace the whole table by `rows` in one commit and return the version that holds them."""
        return self._write(spec, rows, transaction, "overwrite")

    def replace_few(self, spec: TableSpec, rows: list[dict[str, Any]], transaction: Transaction) -> None:
        """As `replace`, for some rows that the driver has: where it reaches the folder it needs no Spark job for them.

        Times are aware ones.
        """
        self._write_arrow(spec, pa.Table.from_pylist(rows, arrow_schema(spec)), transaction, "overwrite")

    def append_few(self, spec: TableSpec, rows: list[dict[str, Any]], transaction: Transaction) -> None:
        """As `append`, for some rows that the driver has; see `replace_few`."""
        self._write_arrow(spec, pa.Table.from_pylist(rows, arrow_schema(spec)), transaction, "append")

    def replace_arrow(self, spec: TableSpec, rows: pa.Table, transaction: Transaction) -> None:
        """As `replace`, for item-level rows that the driver has, with the columns of the contract."""
        self._write_arrow(spec, rows.select(spec.schema.names).cast(arrow_schema(spec)), transaction, "overwrite")

    def _write_arrow(
        self, spec: TableSpec, arrow: pa.Table, transaction: Transaction, mode: Literal["overwrite", "append"]
    ) -> None:
        folder = self.local_folder(spec)
        if folder is None:
            self._write(spec, self.spark.createDataFrame(arrow), transaction, mode)
            return
        application = f"{transaction.application}/{spec.name}"
        exists = DeltaTable.is_deltatable(folder)
        if exists and (DeltaTable(folder).transaction_version(application) or -1) >= transaction.version:
            return
        mark = CommitProperties(app_transactions=[Marker(application, transaction.version)])
        replaced: Literal["overwrite"] | None = "overwrite" if mode == "overwrite" else None
        write_deltalake(folder, arrow, mode=mode, schema_mode=replaced, commit_properties=mark)

    def append_unique(self, spec: TableSpec, rows: pa.Table, version: int, keys: Sequence[Sequence[str]]) -> bool:
        """Add item-level rows that were computed from `version`; False where they have to be computed once more.

        No two rows of the table will have the same value of any of the `keys`, each a few columns, whoever else adds to
        it in the meantime: on a shared file system the commit is the one that follows `version` or none. On other
        storage it is a MERGE, with which others conflict, and which leaves out rows whose keys are taken.
        """
        folder = self.local_folder(spec)
        if folder is None:
            self._insert_missing(spec, rows, keys)
            return False
        arrow = rows.select(spec.schema.names).cast(arrow_schema(spec))
        try:
            only = CommitProperties(max_commit_retries=0)
            write_deltalake(DeltaTable(folder, version=version), arrow, mode="append", commit_properties=only)
        except CommitFailedError:
            return False
        return True

    def _insert_missing(self, spec: TableSpec, rows: pa.Table, keys: Sequence[Sequence[str]]) -> None:
        same = " OR ".join("(" + " AND ".join(f"t.{name} = n.{name}" for name in key) + ")" for key in keys)
        self.spark.createDataFrame(rows).createOrReplaceTempView("_new_rows")
        # Where another MERGE comes first, the caller computes and tries again.
        with suppress(DeltaConcurrentModificationException):
            self.spark.sql(
                f"MERGE INTO delta.`{self.path(spec)}` t USING _new_rows n ON {same} WHEN NOT MATCHED THEN INSERT *"
            )

    def create_missing(self, spec: TableSpec) -> None:
        """Make the table, empty, where it does not exist; another run may do the same."""
        if self.version(spec) is not None:
            return
        folder = self.local_folder(spec)
        # Whoever comes second finds a table of the same columns.
        with suppress(DeltaConcurrentModificationException, CommitFailedError):
            if folder is not None:
                make_empty(folder, spec, "ignore")
            else:
                empty = self.spark.createDataFrame([], spec.schema).write.format("delta").mode("ignore")
                empty.partitionBy(*spec.partition_by).save(self.path(spec))

    def restore(self, spec: TableSpec, version: int) -> None:
        """Make the table what it was at `version`, in one commit, where it is not at that version."""
        if self.version(spec) == version:
            return
        folder = self.local_folder(spec)
        if folder is None:
            self.spark.sql(f"RESTORE TABLE delta.`{self.path(spec)}` TO VERSION AS OF {version}")
        else:
            DeltaTable(folder).restore(version)

    def has_contract(self, spec: TableSpec) -> bool:
        """Whether the table exists with the columns of its contract; an older release may have left it with fewer."""
        if self.version(spec) is None:
            return False
        folder = self.local_folder(spec)
        if folder is None:
            stored = DeltaTableHandle.forPath(self.spark, self.path(spec)).toDF()
            return set(stored.columns) == set(spec.schema.names)
        # Without the Spark jobs that load the table's state.
        return {field.name for field in DeltaTable(folder).schema().fields} == set(spec.schema.names)

    def create(self, spec: TableSpec) -> None:
        """Make the table, empty; one with other columns is emptied and gets these."""
        folder = self.local_folder(spec)
        if folder is not None:
            # Statistics of columns that nobody filters by would cost as much as writing them.
            make_empty(folder, spec, "overwrite")
            return
        empty = self.spark.createDataFrame([], spec.schema).write.format("delta").mode("overwrite")
        empty = empty.option("overwriteSchema", "true").option(*NO_STATISTICS)
        empty.partitionBy(*spec.partition_by).save(self.path(spec))

    def replace_buckets(self, spec: TableSpec, rows: DataFrame, buckets: list[int]) -> int:
        """Replace some `user_bucket`s of an existing table in one commit; returns the version that holds them.

        Doing it twice gives the same table, so that no transaction version is needed.
        """
        chosen = f"{c.USER_BUCKET} in ({', '.join(map(str, buckets))})"
        writer = in_contract(spec, rows).write.format("delta").mode("overwrite").option("replaceWhere", chosen)
        writer.partitionBy(*spec.partition_by).save(self.path(spec))
        return self._latest(spec)

    def partitions(self, spec: TableSpec) -> list[dict[str, str]]:
        """The values of the partition columns, as text, of all partitions that hold a file."""
        folder = self.local_folder(spec)
        if folder is not None:
            return DeltaTable(folder).partitions()
        rows = self.read(spec).select(*spec.partition_by).distinct().collect()
        return [{name: str(row[name]) for name in spec.partition_by} for row in rows]

    def local_folder(self, spec: TableSpec) -> str | None:
        """The table's folder where it is one of a file system that this machine and the workers share, else None."""
        return self.local_path(self.path(spec))

    def local_path(self, address: str) -> str | None:
        """As `local_folder`, for any address."""
        # A path without a scheme is on Hadoop's default file system, and a relative one begins where the driver runs.
        path = hadoop_path(self.spark, address)
        whole = file_system(self.spark, path).makeQualified(path).toUri()
        return str(whole.getPath()) if whole.getScheme() == "file" else None

    def append(self, spec: TableSpec, rows: DataFrame, transaction: Transaction) -> int:
        """Add `rows` in one commit and return the version that holds them."""
        return self._write(spec, rows, transaction, "append")

    def delete_matching(self, spec: TableSpec, keys: DataFrame, column: str) -> None:
        """Delete the rows whose `column` is among the few of `keys`; doing it twice is the same as once."""
        table = DeltaTableHandle.forPath(self.spark, self.path(spec)).alias("stored")
        wanted = F.broadcast(keys.select(column)).alias("keys")
        table.merge(wanted, f"stored.{column} = keys.{column}").whenMatchedDelete().execute()

    def _write(
        self, spec: TableSpec, rows: DataFrame, transaction: Transaction, mode: Literal["overwrite", "append"]
    ) -> int:
        folder, rows = self.local_folder(spec), in_contract(spec, rows)
        known, there = self.has_contract(spec), self.version(spec) is not None
        # Spark's writer is slower; what it leaves besides, the range of every column, is for those who read by it.
        direct = folder is not None and not spec.published and len(spec.partition_by) <= 1
        if direct and folder is not None and (known or mode == "overwrite" or not there):
            application = f"{transaction.application}/{spec.name}"
            if not is_committed(folder, application, transaction.version):
                files = write_files(rows, spec, folder)
                version = transaction.version
                commit_files(folder, spec, files, known=known, mode=mode, application=application, version=version)
            return self._latest(spec)
        writer = (
            rows.write.format("delta")
            .mode(mode)
            .option("txnAppId", f"{transaction.application}/{spec.name}")
            .option("txnVersion", transaction.version)
        )
        if mode == "append" and there and not known:
            # An older release left it with fewer columns; its rows have null in the new ones.
            writer = writer.option("mergeSchema", "true")
        if spec.partition_by:
            writer = writer.partitionBy(*spec.partition_by)
        writer.save(self.path(spec))
        return self._latest(spec)

    def _latest(self, spec: TableSpec) -> int:
        version = self.version(spec)
        if version is None:
            raise RuntimeError(f"table '{spec.name}' has no version after a write to {self.path(spec)}")
        return version

    def rows(self, spec: TableSpec) -> int:
        """The number of rows, which Delta answers from the statistics in its log without reading a data file."""
        folder = self.local_folder(spec)
        if folder is None or self.version(spec) is None:
            return self.read(spec).count()
        numbers = DeltaTable(folder).get_add_actions(flatten=True).column("num_records")
        return sum(numbers.to_pylist()) if not numbers.null_count else self.read(spec).count()

    @contextmanager
    def scratch(self, name: str) -> Iterator[str]:
        """A folder in the warehouse for what a run needs while it lasts; what a killed run left there is removed."""
        folder = f"{self.root}/_scratch/{name}"
        path = hadoop_path(self.spark, folder)
        system = file_system(self.spark, path)
        system.delete(path, True)
        try:
            yield folder
        finally:
            system.delete(path, True)

    def ensure_writable(self) -> None:
        """Create the warehouse folder.

        Raises:
            UsageError: it is a file, or cannot be created or written.
        """
        path = hadoop_path(self.spark, f"{self.root}/.write_check_{uuid4().hex}")  # another run may be looking, too
        try:
            system = file_system(self.spark, path)
            system.mkdirs(path.getParent())
            system.create(path, True).close()
            system.delete(path, False)
        except Exception as error:  # Hadoop's file systems share no narrower error
            raise UsageError(
                f"warehouse '{self.root}' cannot be written: {java_cause(error)}",
                remedy="set 'warehouse' to a folder that this user may write",
            ) from error
