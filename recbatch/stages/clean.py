"""The stage `clean`: both inputs are checked and parsed before the first table is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, outcome_counts
from recbatch.cleaning.events import finish_events, parse_events
from recbatch.cleaning.items import finish_items, items_of_log, parse_items
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.cleaning.rules import as_array
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
        rows, reasons = parse_items(context.spark, source.items)
        items = _judge(context, rows, reasons, "items", source.items.path, counts)
    rows, reasons = parse_events(
        context.spark,
        source.events,
        context.config.cleaning,
        None if items is None else _accepted(items).select(c.ITEM_ID),
        counts.get(f"items:{ACCEPTED}", 0),
    )
    events = _judge(context, rows, reasons, "events", source.events.path, counts)
    _write(context, events, items)
    return StageResult(row_counts=counts, message=_summary(counts))


def _judge(
    context: StageContext, rows: DataFrame, reasons: Sequence[str], name: str, path: str, counts: dict[str, int]
) -> DataFrame:
    """Evaluate the whole input once, keep the outcome, and add its counts under `name:`."""
    context.progress.notify(f"reading {name} from {path}")
    observed = Observation(name)
    first, *others = outcome_counts(reasons)
    try:
        # Two tables are written from this pass; without the checkpoint each write would parse the files again.
        judged = rows.observe(observed, first, *others).localCheckpoint(eager=True)
    except READ_FAILURES as error:
        raise explain_read_failure(error, path) from error
    found = {key: int(value) for key, value in observed.get.items() if value or not key.startswith("reason:")}
    counts |= {f"{name}:{key}": value for key, value in found.items()}
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
    return judged


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
        # One task a date, so that a date is a file and not one from every task.
        EVENTS: finished.repartition(c.EVENT_DATE),
        REJECTED_EVENTS: _rejected(events, run_id),
    }
    for spec, rows in tables.items():
        context.progress.notify(f"writing {spec.name}")
        context.tables.replace(spec, rows, context.transaction)


def _accepted(rows: DataFrame) -> DataFrame:
    return rows.where(F.col(OUTCOME) == ACCEPTED)


def _rejected(rows: DataFrame, run_id: str) -> DataFrame:
    rejected = rows.where(F.col(OUTCOME) == REJECTED)
    return rejected.withColumns({c.REASONS: as_array(F.col(c.REASONS)), c.RUN_ID: F.lit(run_id)})


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
