"""The stage `clean`: what has arrived since the last run goes into `events`, `items` and the rejected rows of both."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import generation as generations
from recbatch.cleaning.arrivals import Arrived, everything, follow
from recbatch.cleaning.batch import KnownItems, check_share, clean_batch
from recbatch.cleaning.contract import Contract
from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, outcome_counts
from recbatch.cleaning.events import latest_event
from recbatch.cleaning.generation import Batch, Generation
from recbatch.cleaning.imputations import check_figures, check_lines, imputations
from recbatch.cleaning.item_history import current_items, extended_history
from recbatch.cleaning.items import extend_items_of_log, finish_items, fit_item_fills, parse_items
from recbatch.cleaning.raw import READ_FAILURES, explain_read_failure
from recbatch.cleaning.rules import as_array
from recbatch.config.inputs import EventsInput, ItemsInput
from recbatch.context import StageContext
from recbatch.errors import InputContractError, UsageError
from recbatch.tables import columns as c
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import EVENTS, IMPUTATIONS, ITEM_HISTORY, ITEMS, REJECTED_ITEMS
from recbatch.transforms.attributes import attribute_column, attribute_value
from recbatch.transforms.imputation import Fill

GENERATION, BATCH = "generation", "batch"


@dataclass(frozen=True)
class Catalogue:
    """The judged rows of the catalogue, its counts, and the state that says that it was read."""

    rows: DataFrame
    counts: Mapping[str, int]
    state: Mapping[str, Any]


def clean(context: StageContext) -> StageResult:
    """New files (or rows of a Delta table) of the log, and the catalogue where it has changed, to clean tables.

    Raises:
        InputContractError: an input breaks its contract or too much of it is rejected; nothing is written then.
        UsageError: the options have changed, and files that were cleaned under the old ones are gone.
    """
    spark, source = context.spark, context.config.input
    present = _present(spark, source.events)
    generation = _generation(context, present)
    catalogue = None if source.items is None else _read_catalogue(context, generation, source.items)
    items = _known_items(context, catalogue)

    def handle(number: int, arrived: Arrived) -> None:
        batch = clean_batch(context, generation, number, arrived, items)
        context.progress.notify(f"batch {number}: {_summary(_prefixed('events', batch.counts or {}))}")

    follow(spark, source.events, generation.checkpoint, handle, every_seconds=context.request.follow_seconds)
    if not generation.started():
        raise InputContractError(f"input '{source.events.path}' has no rows", remedy="nothing was written")
    generation.forget_others()
    fills = _write_items(context, generation, catalogue)
    return _result(context, generation, catalogue, present, fills)


def _present(spark: SparkSession, source: EventsInput) -> Arrived:
    """What there is of the log. Raises InputContractError where there is none, or nothing in it."""
    present = everything(spark, source)
    if present.rows is None and not any(size for _, size, _ in present.files):
        what = (
            f"every file at '{source.path}' is empty" if present.files else f"input path '{source.path}' has no files"
        )
        raise InputContractError(what, remedy="set the input's 'path' to the folder of the raw files")
    return present


def _generation(context: StageContext, present: Arrived) -> Generation:
    """The generation to go on with, or a new one where the options have changed or everything is asked for anew."""
    cleaning = context.config.cleaning.model_dump(mode="json", exclude={"max_rejected_share"})
    events = context.config.input.events.model_dump(mode="json", exclude={"files_per_batch"})
    options = generations.fingerprint({"events": events, "cleaning": cleaning})
    last = generations.latest(context.spark, context.tables.root)
    if last is not None and not context.request.full_refresh:
        if last.name.endswith(options) and (context.tables.version(EVENTS) is not None or not last.started()):
            return last
        lost = set(last.taken()) - {path for path, _, _ in present.files}
        if lost and last.started():
            raise UsageError(
                f"the options of cleaning have changed, and {len(lost):,} of the {len(last.taken()):,} files that were "
                f"cleaned under the old ones are gone, such as '{min(lost)}': their events would be lost",
                remedy="put the files back, take the change back, or run `recbatch clean --full-refresh` to build the "
                "tables from the files that are there",
            )
        context.progress.notify("the options have changed, or tables are missing: everything is cleaned again")
    return generations.begin(context.spark, context.tables.root, options)


def _read_catalogue(context: StageContext, generation: Generation, source: ItemsInput) -> Catalogue | None:
    """The whole catalogue with its outcomes, a row an item; None where it is the one that `items` was made of."""
    arrived = everything(context.spark, source)
    state = hashlib.sha256(json.dumps([arrived.files, source.model_dump(mode="json")]).encode()).hexdigest()
    before = generation.items_state()
    if arrived.rows is None and before.get("state") == state and context.tables.version(ITEMS) is not None:
        return None
    context.progress.notify(f"reading items from {source.path}")
    contract = Contract(dict(before.get("kinds", {})))
    rows, codes = parse_items(context.spark, source, arrived, contract)
    observed = Observation("items")
    first, *others = outcome_counts(codes)
    try:
        # Two tables are written from this pass; without the checkpoint each write would parse the files again.
        judged = rows.observe(observed, first, *others).localCheckpoint(eager=True)
    except READ_FAILURES as error:
        raise explain_read_failure(error, source.path) from error
    found = {key: int(value) for key, value in observed.get.items() if value or not key.startswith("reason:")}
    if found["read"] == 0:
        raise InputContractError(f"input '{source.path}' has no rows", remedy="nothing was written")
    check_share(found, source.path, context.config.cleaning.max_rejected_share)
    judged = judged.withColumn(c.REASONS, as_array(F.col(c.REASONS), codes))
    return Catalogue(judged, found, {"state": state, "kinds": contract.kinds})


def _known_items(context: StageContext, catalogue: Catalogue | None) -> KnownItems:
    if context.config.input.items is None:
        return KnownItems(None, 0)
    if catalogue is None:
        return KnownItems(context.tables.read(ITEMS).select(c.ITEM_ID), context.tables.rows(ITEMS))
    return KnownItems(_accepted(catalogue.rows).select(c.ITEM_ID).distinct(), catalogue.counts[ACCEPTED])


def _write_items(context: StageContext, generation: Generation, catalogue: Catalogue | None) -> dict[str, Fill]:
    """Write the catalogue and its history; returns how missing attributes were filled."""
    run_id, source, tables = context.run_id, context.config.input.items, context.tables
    batches = _unreported(context, generation)
    fills: dict[str, Fill] = {}
    if source is None:
        known = tables.read(ITEMS) if generation.items_state() and tables.version(ITEMS) is not None else None
        events = tables.read(EVENTS).where(F.col(c.RUN_ID).isin([one.run_id for one in batches]))
        versions = extend_items_of_log(known, events, run_id) if batches else None
        rejected, state = context.spark.createDataFrame([], REJECTED_ITEMS.schema), {"state": "from the log"}
    elif catalogue is not None:
        accepted = _accepted(catalogue.rows)
        fills = fit_item_fills(accepted, source)
        versions = finish_items(accepted, source, fills, run_id)
        rejected = catalogue.rows.where(F.col(OUTCOME) == REJECTED).withColumn(c.RUN_ID, F.lit(run_id))
        state = dict(catalogue.state)
    else:
        versions = None
    if versions is not None:
        context.progress.notify(f"writing {ITEMS.name}")
        tables.replace(ITEMS, current_items(versions), context.transaction)
        if source is not None or tables.version(REJECTED_ITEMS) is None:
            tables.replace(REJECTED_ITEMS, rejected, context.transaction)
        _write_history(context, versions, catalogue=source is not None)
        generation.keep_items_state(state)
    _write_imputations(context, batches, generation.fills() or {}, fills)
    return fills


def _write_history(context: StageContext, versions: DataFrame, *, catalogue: bool) -> None:
    """A catalogue made of the log needs no history: when an item became known is when it became valid."""
    tables, previous, known_from = context.tables, None, None
    if catalogue and tables.version(ITEM_HISTORY) is not None:
        previous, known_from = tables.read(ITEM_HISTORY), latest_event(tables.read(EVENTS))
    tables.replace(ITEM_HISTORY, extended_history(previous, versions, known_from), context.transaction)


def _write_imputations(
    context: StageContext, batches: list[Batch], events: Mapping[str, Fill], items: Mapping[str, Fill]
) -> None:
    """How the rows of this run were filled; of events only those that are filled by groups are looked at again."""
    tables, source = context.tables, context.config.input.items
    attributes = {} if source is None else source.attributes
    by_attribute = {attribute_column(name): attribute_value(name, one) for name, one in attributes.items()}
    grouped = {name: fill for name, fill in events.items() if fill.groups is not None}
    fresh = tables.read(EVENTS).where(F.col(c.RUN_ID).isin([one.run_id for one in batches]))
    frames = []
    if grouped:
        frames.append(imputations(fresh, grouped, {c.ITEM_ID: F.col(c.ITEM_ID)}, EVENTS.name))
    if items:
        frames.append(imputations(tables.read(ITEMS), items, by_attribute, ITEMS.name))
    if frames:
        rows = reduce(DataFrame.unionByName, frames).withColumn(c.RUN_ID, F.lit(context.run_id))
        tables.append(IMPUTATIONS, rows, context.transaction)
    scalars = {name: fill for name, fill in events.items() if name not in grouped}
    missing = Counter[str]()
    for batch in batches:
        missing.update(batch.missing)
    few: list[dict[str, Any]] = [
        {c.TABLE_NAME: EVENTS.name, c.COLUMN_NAME: name, c.STRATEGY: fill.strategy, c.VALUE: str(fill.value)}
        | {c.GROUP: None, c.ROWS: missing[name], c.RUN_ID: context.run_id}
        for name, fill in scalars.items()
    ]
    if batches:
        transaction = replace(context.transaction, application=f"{context.transaction.application}/scalars")
        tables.append_few(IMPUTATIONS, few, transaction)


def _accepted(rows: DataFrame) -> DataFrame:
    return rows.where(F.col(OUTCOME) == ACCEPTED)


def _unreported(context: StageContext, generation: Generation) -> list[Batch]:
    """The batches that no finished run has counted: those of this run, and of runs that were killed after a commit."""
    figures = {} if context.previous is None else context.previous[c.FIGURES]
    last = figures.get(BATCH, -1) if figures.get(GENERATION) == generation.number else -1
    return [one for one in generation.done() if one.number > last]


def _result(
    context: StageContext,
    generation: Generation,
    catalogue: Catalogue | None,
    present: Arrived,
    fills: Mapping[str, Fill],
) -> StageResult:
    batches = _unreported(context, generation)
    events: Counter[str] = Counter()
    for batch in batches:
        events.update(batch.counts or {})
    counts = _prefixed("events", events) | ({} if catalogue is None else _prefixed("items", catalogue.counts))
    notices = [notice for batch in batches for notice in batch.notices] + _rewritten(generation, present)
    for notice in notices:
        context.progress.notify(notice)
    done = generation.done()
    figures = {GENERATION: float(generation.number)} | ({BATCH: float(done[-1].number)} if done else {})
    message = "; ".join([_summary(counts) or "no new events", *check_lines(fills), *notices])
    return StageResult(counts, figures | check_figures(fills), message)


def _rewritten(generation: Generation, present: Arrived) -> list[str]:
    """A stream knows a file by its name: what is written into it later would be ignored in silence."""
    now = {path: (size, time) for path, size, time in present.files}
    taken = generation.taken()
    changed = sorted(path for path in taken if path in now and now[path] != taken[path])
    if not changed:
        return []
    others = f" and {len(changed) - 1:,} others" if len(changed) > 1 else ""
    return [
        f"file '{changed[0]}'{others} changed after it was cleaned and is not read again: give new events a new file, "
        "or run `recbatch clean --full-refresh`"
    ]


def _prefixed(name: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{name}:{key}": value for key, value in counts.items()}


def _summary(counts: Mapping[str, int]) -> str:
    parts = []
    for name in ("events", "items"):
        if counts.get(f"{name}:read"):
            duplicates = counts[f"{name}:{EXACT_DUPLICATE}"] + counts[f"{name}:{KEY_DUPLICATE}"]
            parts.append(
                f"{name}: {counts[f'{name}:read']:,} read = {counts[f'{name}:{ACCEPTED}']:,} accepted "
                f"+ {duplicates:,} duplicates + {counts[f'{name}:{REJECTED}']:,} rejected"
            )
    if n := counts.get("events:evicted"):
        parts.append(f"{n:,} events accepted before were moved to the rejected ones, because their users are bots")
    return "; ".join(parts)
