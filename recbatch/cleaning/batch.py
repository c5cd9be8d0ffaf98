"""One batch of the log, from what has arrived to committed tables.

Every table is committed under a transaction of the batch, and the record of the batch is closed last. A batch that was
interrupted is made again from the same files against the same versions of the tables: what it has committed already is
the same, and Delta skips it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.cleaning.arrivals import Arrived, everything
from recbatch.cleaning.contract import Contract
from recbatch.cleaning.duplicates import ACCEPTED, OUTCOME, REJECTED
from recbatch.cleaning.events import VALUES, finish_events, fit_event_fills, parse_events
from recbatch.cleaning.generation import Batch, Generation
from recbatch.cleaning.quality import distinct_values, quality_rows
from recbatch.cleaning.rules import as_array
from recbatch.cleaning.staging import Staged, Tally, stage_rows
from recbatch.cleaning.verdicts import BROADCAST_ROWS, Judged, judge
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.tables import columns as c
from recbatch.tables.schemas import BOTS, DATA_QUALITY, EVENTS, REJECTED_EVENTS, TableSpec
from recbatch.tables.store import Transaction
from recbatch.transforms import imputation

_FILES_A_DATE = 4
_ROWS_A_FILE, _ROWS_A_TASK = 5_000_000, 2_500_000

JUDGED_AGAINST = (EVENTS, BOTS)
_MARK = "_mark"


@dataclass(frozen=True)
class KnownItems:
    """The item_ids of the catalogue and how many there are; `ids` is None where any item is welcome."""

    ids: DataFrame | None
    count: int


def clean_batch(
    context: StageContext, generation: Generation, number: int, arrived: Arrived, items: KnownItems
) -> Batch:
    """Parse, judge and commit one batch; one that is done already is left alone.

    Raises:
        InputContractError: a file breaks the contract, or too many rows would be rejected; nothing is written then.
    """
    batch = generation.batches.get(number)
    if batch is not None and batch.done:
        return batch
    arrived = _present(context, arrived)
    if batch is None:
        versions = {spec.name: _version(context, generation, spec) for spec in JUDGED_AGAINST}
        batch = Batch(number, context.run_id, arrived.files, versions)
    batch = replace(batch, files=arrived.files)
    generation.record(batch)
    if arrived.rows is None and not arrived.files:
        return _close(generation, replace(batch, counts={"read": 0}))
    contract = Contract(dict(generation.kinds()))
    with context.tables.scratch("clean") as folder:
        staged = _stage(context, arrived, items, contract, f"{folder}/{generation.name}-{number}")
        if not staged.tally.reasons:
            return _close(generation, replace(batch, counts={"read": 0}, kinds=contract.kinds))
        # Beside the search, whose steps leave cores idle while the next one is planned.
        with ThreadPoolExecutor(1) as beside:
            distinct = beside.submit(distinct_values, staged.rows.where(F.col(c.REASONS) == 0))
            judged = _judge(context, batch, staged)
        if generation.fills() is None:
            accepted = judged.rows.where(F.col(OUTCOME) == ACCEPTED)
            generation.keep_fills(fit_event_fills(accepted, context.config.cleaning))
        missing = dict(judged.tally.missing)
        batch = replace(batch, kinds=contract.kinds, missing=missing, notices=tuple(contract.notices))
        generation.record(batch)
        quality = quality_rows(batch.run_id, judged.tally, distinct.result())
        evicted = _commit(context, generation, batch, judged, quality)
    return _close(generation, replace(batch, counts=judged.counts() | ({"evicted": evicted} if evicted else {})))


def _present(context: StageContext, arrived: Arrived) -> Arrived:
    """Without files that are empty, or that were removed since the stream saw them; as they are now."""
    if arrived.rows is not None:
        return arrived
    now = {
        path: (path, size, time) for path, size, time in everything(context.spark, context.config.input.events).files
    }
    return Arrived(tuple(now[path] for path, _, _ in arrived.files if path in now and now[path][1] > 0))


def _version(context: StageContext, generation: Generation, spec: TableSpec) -> int | None:
    """What a new batch is judged against; the first batch of a generation replaces the tables, whatever they hold."""
    return context.tables.version(spec) if generation.started() else None


def _close(generation: Generation, batch: Batch) -> Batch:
    done = replace(batch, done=True)
    generation.record(done)
    return done


def _stage(context: StageContext, arrived: Arrived, items: KnownItems, contract: Contract, folder: str) -> Staged:
    source, cleaning = context.config.input.events, context.config.cleaning
    context.progress.notify(f"reading events from {source.path}")
    parsed, codes = parse_events(context.spark, source, cleaning, items.ids, items.count, arrived, contract)
    return stage_rows(parsed, codes, folder, source.path)


def _judge(context: StageContext, batch: Batch, staged: Staged) -> Judged:
    cleaning, path = context.config.cleaning, context.config.input.events.path
    check_share(Judged(staged.rows, staged.codes, staged.tally, {}, None).counts(), path, cleaning.max_rejected_share)
    context.progress.notify("looking for duplicates and bots")
    stored = _stored(context, batch, staged)
    known = None if batch.versions[BOTS.name] is None else context.tables.read(BOTS, batch.versions[BOTS.name])
    judged = judge(staged, cleaning, stored=stored, known_bots=known)
    check_share(judged.counts(), path, cleaning.max_rejected_share)
    return judged


def _stored(context: StageContext, batch: Batch, staged: Staged) -> DataFrame | None:
    """The rows that new ones may repeat, or add up with to more than a person does: those of a user's same dates."""
    version = batch.versions[EVENTS.name]
    if version is None or not context.config.cleaning.duplicate_key:
        return None
    events = context.tables.read(EVENTS, version)
    # Without the time in the key, what a row repeats may be of any date.
    of_a_date = [c.EVENT_DATE] if c.EVENT_TIME in context.config.cleaning.duplicate_key else []
    if of_a_date:
        events = events.where(F.col(c.EVENT_DATE).isin(staged.tally.dates()))
    new = staged.rows.where(F.col(c.REASONS) == 0).withColumn(c.EVENT_DATE, F.to_date(c.EVENT_TIME))
    # One number is looked up faster than a text and a date; the rows that it finds too many do no harm.
    mark = F.xxhash64(c.USER_ID, *of_a_date)
    new = new.select(mark.alias(_MARK)).distinct()
    few = staged.tally.reasons[0] <= BROADCAST_ROWS
    found = events.withColumn(_MARK, mark).join(F.broadcast(new) if few else new, on=_MARK, how="left_semi")
    # What was filled is forgotten: a row and its repeat must not differ in it.
    found = imputation.forget(found.drop(_MARK), context.config.cleaning.missing())
    if context.config.input.events.columns.weight is None:
        found = found.withColumn(c.WEIGHT, F.lit(None).cast("double"))
    # Of a small batch's size is what is left of the table; the search and the verdicts would each scan all of it.
    return found.localCheckpoint(eager=True) if few else found


def _commit(
    context: StageContext, generation: Generation, batch: Batch, judged: Judged, quality: list[dict[str, Any]]
) -> int:
    """Write the tables of the batch; returns how many stored rows were moved because their user is a bot."""
    record = F.coalesce(c.RAW_RECORD, F.to_json(F.struct(*VALUES)))
    rows = judged.rows.withColumns({c.RAW_RECORD: record, c.REASONS: as_array(F.col(c.REASONS), judged.codes)})
    rejected = rows.where(F.col(OUTCOME) == REJECTED).withColumn(c.RUN_ID, F.lit(batch.run_id))
    bots = _new_bots(context, batch, judged)
    evicted = None if bots is None else _evicted(context, batch, bots)
    if evicted is not None:
        rejected = rejected.select(*evicted.columns).unionByName(evicted)
    context.progress.notify(f"writing {EVENTS.name}")
    application = f"{context.config.pipeline}/clean/{generation.name}"
    transaction = Transaction(application, batch.number)
    context.tables.append_few(DATA_QUALITY, quality, transaction)
    write = context.tables.append if generation.started() else context.tables.replace
    if bots is not None and not (generation.started() and bots.isEmpty()):
        write(BOTS, bots, transaction)
    write(REJECTED_EVENTS, rejected, transaction)
    if evicted is not None and bots is not None:
        context.tables.delete_matching(EVENTS, bots, c.USER_ID)
    accepted = rows.where(F.col(OUTCOME) == ACCEPTED)
    finished = finish_events(accepted, generation.fills() or {}, context.config.input.events, batch.run_id)
    write(EVENTS, _by_date(finished, judged.tally), transaction)
    return 0 if evicted is None else evicted.count()


def _by_date(events: DataFrame, tally: Tally) -> DataFrame:
    """The rows so that a date is a file or some, and not one from every task.

    Where the dates of a log come one after the other they are left as they are: a shuffle costs as much as writing.
    """
    sizes = Counter[dt.date]()
    for (day, _), n in tally.days.items():
        sizes[day] += n
    if not sizes or tally.pieces <= _FILES_A_DATE * len(sizes):
        return events
    parts = max(1, -(-max(sizes.values()) // _ROWS_A_FILE))
    cores = events.sparkSession.sparkContext.defaultParallelism
    tasks = max(2 * cores, -(-sizes.total() // _ROWS_A_TASK))
    # Without the number, adaptive execution would join the tasks to one.
    return events.repartition(min(tasks, parts * len(sizes)), c.EVENT_DATE, F.pmod(F.xxhash64(c.ITEM_ID), F.lit(parts)))


def _new_bots(context: StageContext, batch: Batch, judged: Judged) -> DataFrame | None:
    """user_id and reasons of the bots that were not known before, held where they are; None where nobody looks."""
    if judged.bots is None:
        return None
    bots = judged.bots.withColumn(c.REASONS, as_array(F.col(c.REASONS), judged.codes))
    version = batch.versions[BOTS.name]
    if version is not None:
        bots = bots.join(context.tables.read(BOTS, version).select(c.USER_ID), on=c.USER_ID, how="left_anti")
    return bots.withColumn(c.RUN_ID, F.lit(batch.run_id)).localCheckpoint(eager=True)


def _evicted(context: StageContext, batch: Batch, bots: DataFrame) -> DataFrame | None:
    """The stored rows of new bots, as rows of `rejected_events`; None where there are none."""
    version = batch.versions[EVENTS.name]
    if version is None or bots.isEmpty():
        return None
    stored = context.tables.read(EVENTS, version).join(F.broadcast(bots.drop(c.RUN_ID)), on=c.USER_ID)
    rows = stored.select(
        F.to_json(F.struct(*VALUES)).alias(c.RAW_RECORD), c.REASONS, c.SOURCE_FILE, F.lit(batch.run_id).alias(c.RUN_ID)
    ).localCheckpoint(eager=True)
    return None if rows.isEmpty() else rows


def check_share(found: Mapping[str, int], path: str, limit: float) -> None:
    """Refuse an input of which a larger share than `limit` would be rejected.

    Raises:
        InputContractError: the share is larger.
    """
    if found[REJECTED] > limit * found["read"]:
        worst = {key.removeprefix("reason:"): value for key, value in found.items() if key.startswith("reason:")}
        raise InputContractError(
            f"{found[REJECTED]:,} of {found['read']:,} rows of '{path}' would be rejected "
            f"({', '.join(f'{reason}: {count:,}' for reason, count in sorted(worst.items()))}), "
            f"more than cleaning.max_rejected_share = {limit}",
            remedy="check the column mapping and the time format; nothing was written",
        )
