"""Table rows on the driver as Arrow: item-level tables, and the sampled buckets of user-level ones, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.tables.contracts import completed_arrow
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore


def read_arrow(
    store: TableStore,
    spec: TableSpec,
    *,
    columns: Sequence[str] | None = None,
    bucket: int | None = None,
    version: int | None = None,
) -> pa.Table:
    """A table at `version` or the latest, or one `user_bucket` of it, as one Arrow table.

    Where the driver reaches the files itself they are read without Spark, which is an order of magnitude faster than
    collecting them from executors; from other storage they come through Spark.
    """
    names = list(columns or spec.schema.names)
    folder = store.local_folder(spec)
    wanted = store.version(spec) if version is None else version
    if folder is None or wanted is None:
        rows = store.read(spec, version)  # says which stage to run where the table is missing
        if bucket is not None:
            rows = rows.where(F.col(c.USER_BUCKET) == bucket)
        return rows.select(*names).toArrow()
    filters = None if bucket is None else [(c.USER_BUCKET, "=", bucket)]
    table = DeltaTable(folder, version=wanted)
    stored = {field.name for field in table.schema().fields}
    rows = table.to_pyarrow_table(filters=filters, columns=[name for name in names if name in stored])
    return completed_arrow(spec, rows, names)


def export_buckets(
    store: TableStore,
    spec: TableSpec,
    buckets: Iterable[int],
    folder: Path,
    prepare: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> list[Path]:
    """Write every bucket that has rows as an Arrow IPC file in `folder`, so that a reader can map them into memory.

    prepare: what the rows of a bucket become on the way.
    Only one bucket is in memory at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for bucket in buckets:
        rows = read_arrow(store, spec, bucket=bucket)
        if len(rows) == 0:
            continue
        file = folder / f"{bucket:05d}.arrow"
        # The users of a bucket lie in the order that files were written in, which a retry may change.
        ordered = prepare(rows.sort_by(c.USER_ID)).combine_chunks()
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, ordered.schema) as writer:
            writer.write_table(ordered)
        files.append(file)
    return files
