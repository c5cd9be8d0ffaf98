"""The stage `clean`: both inputs are checked and parsed before the first table is written."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, outcome_counts
from recbatch.cleaning.events import VALUES, finish_events, parse_events
from recbatch.cleaning.items import finish_items, items_of_log, parse_items
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.cleaning.rules import as_array
from recbatch.cleaning.staging import stage_rows
from recbatch.cleaning.verdicts import judge
from recbatch.config.inputs import ItemsInput
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.tables import columns as c
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import EVENTS, ITEMS, REJECTED_EVENTS, REJECTED_ITEMS


def clean(context: StageContext) -> StageResult:
    """Raw log and catalogue to `events`, `items` and the rejected rows of both.

    Raises:
        InputContractError: an input breaks its contract or too much of it is rejected; nothing is written then.
    """
    counts: dict[str, int] = {}
    source = context.config.input
    items = None
    if source.items is not None:
        items = _judge_items(context, source.items, counts)
    with context.tables.scratch("clean") as folder:
        known = None if items is None else _accepted(items).select(c.ITEM_ID).distinct()
        events = _judge_events(context, known, counts, f"{folder}/events")
        _write(context, events, items)
    return StageResult(row_counts=counts, message=_summary(counts))


def _judge_items(context: StageContext, source: ItemsInput, counts: dict[str, int]) -> DataFrame:
    """The whole catalogue with its outcomes; a row an item, so that it is held where it is."""
    context.progress.notify(f"reading items from {source.path}")
    rows, codes = parse_items(context.spark, source)
    observed = Observation("items")
    first, *others = outcome_counts(codes)
    try:
        # Two tables are written from this pass; without the checkpoint each write would parse the files again.
        judged = rows.observe(observed, first, *others).localCheckpoint(eager=True)
    except READ_FAILURES as error:
        raise explain_read_failure(error, source.path) from error
    found = {key: int(value) for key, value in observed.get.items() if value or not key.startswith("reason:")}
    _check_share(context, found, source.path)
    counts |= {f"items:{key}": value for key, value in found.items()}
    return judged.withColumn(c.REASONS, as_array(F.col(c.REASONS), codes))


def _judge_events(context: StageContext, known: DataFrame | None, counts: dict[str, int], folder: str) -> DataFrame:
    source, cleaning = context.config.input.events, context.config.cleaning
    context.progress.notify(f"reading events from {source.path}")
    n_items = counts.get(f"items:{ACCEPTED}", 0)
    staged = stage_rows(*parse_events(context.spark, source, cleaning, known, n_items), folder, source.path)
    _check_share(context, staged.counts, source.path)
    context.progress.notify("looking for duplicates and bots")
    judged = judge(staged, cleaning)
    _check_share(context, judged.counts, source.path)
    counts |= {f"events:{key}": value for key, value in judged.counts.items()}
    values = F.to_json(F.struct(*VALUES))
    rows = judged.rows.withColumn(c.RAW_RECORD, F.coalesce(c.RAW_RECORD, values))
    return rows.withColumn(c.REASONS, as_array(F.col(c.REASONS), judged.codes))


def _check_share(context: StageContext, found: Mapping[str, int], path: str) -> None:
    if found["read"] == 0:
        raise InputContractError(f"input '{path}' has no rows", remedy="nothing was written")
    limit = context.config.cleaning.max_rejected_share
    if found[REJECTED] > limit * found["read"]:
        worst = {key.removeprefix("reason:"): value for key, value in found.items() if key.startswith("reason:")}
        raise InputContractError(
            f"{found[REJECTED]:,} of {found['read']:,} rows of '{path}' would be rejected "
            f"({', '.join(f'{reason}: {count:,}' for reason, count in sorted(worst.items()))}), "
            f"more than cleaning.max_rejected_share = {limit}",
            remedy="check the column mapping and the time format; nothing was written",
        )


def _write(context: StageContext, events: DataFrame, items: DataFrame | None) -> None:
    run_id = context.run_id
    finished = finish_events(_accepted(events), context.config.cleaning, run_id)
    source = context.config.input.items
    catalogue = items_of_log(_accepted(events), run_id)
    if items is not None and source is not None:
        catalogue = finish_items(_accepted(items), source, run_id)
    nothing = context.spark.createDataFrame([], REJECTED_ITEMS.schema)
    tables = {
        ITEMS: catalogue,
        REJECTED_ITEMS: nothing if items is None else _rejected(items, run_id),
        EVENTS: finished,
        REJECTED_EVENTS: _rejected(events, run_id),
    }
    for spec, rows in tables.items():
        context.progress.notify(f"writing {spec.name}")
        context.tables.replace(spec, rows, context.transaction)


def _accepted(rows: DataFrame) -> DataFrame:
    return rows.where(F.col(OUTCOME) == ACCEPTED)


def _rejected(rows: DataFrame, run_id: str) -> DataFrame:
    rejected = rows.where(F.col(OUTCOME) == REJECTED)
    return rejected.withColumn(c.RUN_ID, F.lit(run_id))


def _summary(counts: Mapping[str, int]) -> str:
    parts = []
    for name in ("events", "items"):
        if f"{name}:read" in counts:
            duplicates = counts[f"{name}:{EXACT_DUPLICATE}"] + counts[f"{name}:{KEY_DUPLICATE}"]
            parts.append(
                f"{name}: {counts[f'{name}:read']:,} read = {counts[f'{name}:{ACCEPTED}']:,} accepted "
                f"+ {duplicates:,} duplicates + {counts[f'{name}:{REJECTED}']:,} rejected"
            )
    return "; ".join(parts)
