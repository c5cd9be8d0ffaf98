"""The driver's side of `delivery`: what workers have made is collected, read, and committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recbatch.features.delivery import CONTENT, FILES, FILES_DDL, KIND, PATH, PLACE, ROWS, SIZE, Delivery
from recbatch.tables import columns as c
from recbatch.tables.bulk import replace_buckets_by_files, replace_by_files
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore, Transaction
from recbatch.tables.written import WrittenFile

Work = Callable[[Delivery], Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]]


class Deliveries:
    """The files of one job. scratch: a folder that lasts as long as they are needed.

    specs: the tables that files are made for, by kind. Files of other kinds are for this run only.
    """

    def __init__(self, tables: TableStore, scratch: str, specs: Sequence[TableSpec], others: Sequence[str]) -> None:
        self._tables, self._scratch = tables, scratch
        self._specs = {spec.name: spec for spec in specs}
        for spec in specs:
            if not tables.has_contract(spec):
                tables.create(spec)
        folders = {name: tables.local_folder(spec) for name, spec in self._specs.items()}
        local = tables.local_path(scratch)
        self._folders: dict[str, str] | None = None
        if local is not None and all(folders.values()):
            self._folders = {name: str(folder) for name, folder in folders.items()}
            self._folders |= {name: f"{local}/{name}" for name in others}
        self._files: list[Row] = []
        self._sent: DataFrame | None = None

    def make(self, rows: DataFrame, work: Work) -> None:
        """Run `work` over the partitions of `rows` once."""
        made = rows.mapInArrow(work(Delivery(self._folders)), FILES_DDL)
        if self._folders is None:
            made.write.mode("overwrite").parquet(f"{self._scratch}/sent")
            self._sent = made = rows.sparkSession.read.parquet(f"{self._scratch}/sent")
        self._files = made.drop(CONTENT).collect()

    def of(self, kind: str) -> list[Row]:
        """Rows of `delivery.FILES`, without their content."""
        return [row for row in self._files if row[KIND] == kind]

    def contents(self, kind: str) -> Iterator[bytes]:
        """What is in the files of a kind, one file at a time."""
        if self._sent is not None:
            for row in self._sent.where(F.col(KIND) == kind).select(CONTENT).toLocalIterator():
                yield bytes(row[CONTENT])
        for files in self.paths(kind).values():
            for file in files:
                yield Path(file).read_bytes()

    def paths(self, kind: str) -> dict[int, list[str]]:
        """By place, the files that workers can open; none where they were sent."""
        found: dict[int, list[str]] = {}
        if self._folders is not None:
            for row in self.of(kind):
                found.setdefault(row[PLACE], []).append(f"{self._folders[kind]}/{row[PATH]}")
        return found

    def rows(self, kind: str) -> DataFrame:
        """Rows of `delivery.FILES`, with the content of those that were sent."""
        if self._sent is not None:
            return self._sent.where(F.col(KIND) == kind)
        places = pa.table({PLACE: pa.array(sorted(self.paths(kind)), pa.int32())})
        empty = {name: pa.nulls(len(places), FILES.field(name).type) for name in FILES.names if name != PLACE}
        whole = pa.table({name: empty.get(name, places[PLACE]) for name in FILES.names}, schema=FILES)
        return self._tables.spark.createDataFrame(whole)

    def commit(self, kind: str, buckets: Sequence[int], transaction: Transaction) -> None:
        """Put the files of a table in the place of what some `user_bucket`s hold, or of all in a table without them."""
        spec = self._specs[kind]
        bucketed = bool(spec.partition_by)
        if self._folders is None:
            rows = self._unpacked(spec)
            if bucketed:
                self._tables.replace_buckets(spec, rows, list(buckets))
            else:
                self._tables.replace(spec, rows, transaction)
            return
        files = [
            WrittenFile(row[PATH], row[SIZE], row[ROWS], {c.USER_BUCKET: str(row[PLACE])} if bucketed else {})
            for row in self.of(kind)
        ]
        if bucketed:
            replace_buckets_by_files(self._folders[kind], spec, files, buckets)
        else:
            replace_by_files(self._folders[kind], spec, files)

    def _unpacked(self, spec: TableSpec) -> DataFrame:
        """The rows of the files of a table that were sent."""
        names = [field.name for field in spec.schema]

        def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for place, content in zip(batch.column(PLACE), batch.column(CONTENT), strict=True):
                    rows = pq.read_table(pa.BufferReader(content.as_buffer()))
                    if c.USER_BUCKET in names:
                        rows = rows.append_column(c.USER_BUCKET, pa.repeat(place, len(rows)))
                    yield from rows.select(names).to_batches()

        ddl = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in spec.schema)
        return self.rows(spec.name).mapInArrow(unpack, ddl)
