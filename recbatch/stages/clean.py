"""The stage `clean`: both inputs are checked and parsed before the first table is written."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, outcome_counts
from recbatch.cleaning.events import VALUES, finish_events, fit_event_fills, latest_event, parse_events
from recbatch.cleaning.imputations import check_figures, check_lines, imputations
from recbatch.cleaning.item_history import current_items, extended_history
from recbatch.cleaning.items import finish_items, fit_item_fills, items_of_log, parse_items
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.cleaning.rules import as_array
from recbatch.cleaning.staging import stage_rows
from recbatch.cleaning.verdicts import judge
from recbatch.config.inputs import ItemsInput
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.tables import columns as c
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import EVENTS, IMPUTATIONS, ITEM_HISTORY, ITEMS, REJECTED_EVENTS, REJECTED_ITEMS
from recbatch.transforms.attributes import attribute_column, attribute_value
from recbatch.transforms.imputation import Fill


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
        fills = _write(context, events, items)
    message = "; ".join([_summary(counts), *check_lines(fills)])
    return StageResult(row_counts=counts, figures=check_figures(fills), message=message)


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


def _write(context: StageContext, events: DataFrame, items: DataFrame | None) -> dict[str, Fill]:
    """Write all tables; returns how items were filled."""
    run_id = context.run_id
    event_fills = fit_event_fills(_accepted(events), context.config.cleaning)
    source = context.config.input.items
    item_fills: dict[str, Fill] = {}
    versions = items_of_log(_accepted(events), run_id)
    if items is not None and source is not None:
        item_fills = fit_item_fills(_accepted(items), source)
        versions = finish_items(_accepted(items), source, item_fills, run_id)
    nothing = context.spark.createDataFrame([], REJECTED_ITEMS.schema)
    tables = {
        ITEMS: current_items(versions),
        REJECTED_ITEMS: nothing if items is None else _rejected(items, run_id),
        EVENTS: finish_events(_accepted(events), event_fills, run_id),
        REJECTED_EVENTS: _rejected(events, run_id),
    }
    for spec, rows in tables.items():
        context.progress.notify(f"writing {spec.name}")
        context.tables.replace(spec, rows, context.transaction)
    _write_history(context, versions, catalogue=source is not None)
    _write_imputations(context, event_fills, item_fills)
    return item_fills


def _write_history(context: StageContext, versions: DataFrame, *, catalogue: bool) -> None:
    """A catalogue made of the log needs no history: when an item became known is when it became valid."""
    tables, previous, known_from = context.tables, None, None
    if catalogue and tables.version(ITEM_HISTORY) is not None:
        previous, known_from = tables.read(ITEM_HISTORY), latest_event(tables.read(EVENTS))
    tables.replace(ITEM_HISTORY, extended_history(previous, versions, known_from), context.transaction)


def _write_imputations(context: StageContext, events: Mapping[str, Fill], items: Mapping[str, Fill]) -> None:
    """How the rows of this run were filled, from the tables that hold them."""
    tables, source = context.tables, context.config.input.items
    attributes = {} if source is None else source.attributes
    groups = {attribute_column(name): attribute_value(name, one) for name, one in attributes.items()}
    mine = F.col(c.RUN_ID) == context.run_id
    of_events = imputations(tables.read(EVENTS).where(mine), events, {c.ITEM_ID: F.col(c.ITEM_ID)}, EVENTS.name)
    of_items = imputations(tables.read(ITEMS), items, groups, ITEMS.name)
    rows = of_events.unionByName(of_items).withColumn(c.RUN_ID, F.lit(context.run_id))
    tables.append(IMPUTATIONS, rows, context.transaction)


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
