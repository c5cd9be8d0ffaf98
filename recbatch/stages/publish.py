"""The stage `publish`: gates on the staged tables, then one commit a table and one row in `releases`."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Row
from pyspark.sql import functions as F

from recbatch.context import StageContext
from recbatch.publishing.gates import GateResult, judge, measure, require
from recbatch.stages.inputs import RELEASE, snapshot_times
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult

_ENTRY = (c.RANK, c.ITEM_ID, c.SCORE, c.BECAUSE_ITEM_ID, c.REASON)


def publish(context: StageContext) -> StageResult:
    """Staged lists to the tables that other teams read.

    Raises:
        GateFailedError: a figure missed its limit; no published table has changed.
    """
    tables, config = context.tables, context.config
    made = _made(context)
    staged = tables.read(schemas.STAGED_RECOMMENDATIONS).withColumns(
        {name: F.lit(made[name]) for name in (c.MODEL_VERSION, c.AS_OF, c.RUN_ID)}
    )
    eligible = tables.read(schemas.ITEM_FEATURES).where(c.ELIGIBLE).count()
    figures = measure(staged)
    known_users = tables.rows(schemas.USER_SEQUENCES)
    gates = judge(
        figures, known_users=known_users, eligible_items=eligible, k=config.scoring.k, section=config.publishing
    )
    require(gates)
    by_user = staged.groupBy(c.USER_BUCKET, c.USER_ID, c.MODEL_VERSION, c.AS_OF, c.RUN_ID).agg(
        F.array_sort(F.collect_list(F.struct(*_ENTRY))).alias(c.RECOMMENDATIONS)
    )
    released = {
        # A task of scoring held whole buckets, and so do these: a bucket is one file.
        schemas.RECOMMENDATIONS: staged.repartition(c.USER_BUCKET).sortWithinPartitions(c.USER_ID, c.RANK),
        schemas.RECOMMENDATIONS_BY_USER: by_user.repartition(c.USER_BUCKET),
        schemas.DEFAULT_RECOMMENDATIONS: tables.read(schemas.STAGED_DEFAULT_RECOMMENDATIONS).coalesce(1),
    }
    versions = {}
    for spec, rows in released.items():
        context.progress.notify(f"publishing {spec.name}")
        versions[spec.name] = tables.replace(spec, rows, context.transaction)
    release_id = _record(context, gates, versions)
    return StageResult(
        row_counts={"users": figures.users, "recommendations": figures.rows, "items": figures.items},
        figures={gate.gate: gate.value for gate in gates},
        message=f"release {release_id}: {figures.rows:,} rows for {figures.users:,} of {known_users:,} users",
    )


def _made(context: StageContext) -> Row:
    """By which model, for which moment and in which run the staged lists were made."""
    made = context.tables.read(schemas.STAGED_SCORING).first()
    if made is None:
        raise RuntimeError("table 'staged_scoring' has no row")
    return made


def _record(context: StageContext, gates: list[GateResult], versions: dict[str, int]) -> str:
    """Add the release's row; without it the commits above belong to no release, and a rerun completes them."""
    as_of = snapshot_times(context.tables)[RELEASE]
    release_id = f"{as_of:%Y%m%d}-{context.transaction.version:04d}"
    row = (
        release_id,
        dt.datetime.now(dt.UTC),
        as_of,
        _made(context)[c.MODEL_VERSION],
        versions,
        [(gate.gate, gate.value, gate.limit, gate.passed) for gate in gates],
        context.run_id,
    )
    frame = context.spark.createDataFrame([row], schemas.RELEASES.schema)
    context.tables.append(schemas.RELEASES, frame, context.transaction)
    return release_id
