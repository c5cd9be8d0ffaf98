"""The stage `features`: the same features at three cuts, for the release, for the test and for the validation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute, Missing
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.features.amounts import fit_amounts, mean_prices
from recbatch.features.counts import AMOUNTS, Counts
from recbatch.features.cuts import Cuts
from recbatch.features.index import extend_index
from recbatch.features.item_features import (
    FIRST_CODE,
    catalogue_at,
    category_values,
    coded_values,
    described_items,
    fit_numbers,
    item_features,
)
from recbatch.features.jobs import USER_TABLES, Build, build
from recbatch.features.state import NewEvents, State, new_events, signature
from recbatch.features.user_sequences import behaviours
from recbatch.stages.inputs import EVALUATION, RELEASE, VALIDATION, normalization_drift
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from recbatch.transforms import imputation
from recbatch.transforms.attributes import category_fields, coded_fields, number_fields, text_fields, vector_sizes
from recbatch.transforms.parameters import Parameters

# By snapshot, in the order of the cuts.
_POPULARITY = {
    VALIDATION: schemas.VALIDATION_ITEM_POPULARITY,
    EVALUATION: schemas.EVALUATION_ITEM_POPULARITY,
    RELEASE: schemas.ITEM_POPULARITY,
}
_ITEM_TABLES = {
    EVALUATION: (schemas.EVALUATION_ITEM_FEATURES, schemas.EVALUATION_NORMALIZATION),
    RELEASE: (schemas.ITEM_FEATURES, schemas.NORMALIZATION),
}


def build_features(context: StageContext) -> StageResult:
    """`events` and `items` to indices, sequences, item features and neighbours at every cut.

    Users' pasts are taken from what the last run left, and only new events are read, where that gives the same tables.

    Raises:
        InputContractError: the log is shorter than the holdout, or nothing of it is before `--as-of`.
    """
    tables, section = context.tables, context.config.features
    version = _version(context)
    as_of, first_event = _time_range(context, tables.read(schemas.EVENTS, version))
    cuts = Cuts.before(as_of, section.holdout_days, section.validation_days, section.cut_alignment_days)
    if cuts.validation <= first_event:
        raise InputContractError(
            f"the log begins at {_utc(first_event):%Y-%m-%d}, not before the validation cut "
            f"{_utc(cuts.validation):%Y-%m-%d}",
            remedy="lower features.holdout_days and features.validation_days, or give a longer log",
        )
    items = tables.read(schemas.ITEM_HISTORY)
    more_items = _extend_indices(context)
    types, learned = context.config.input.events.types(), _learned_fills(context)
    mark = signature(types, section.buckets, section.sequence_length, list(learned))
    found = new_events(tables, version, as_of, mark, more_items=more_items)
    _prepare(context, found)
    index = tables.read(schemas.ITEM_INDEX)
    rows = behaviours(found.rows, index, types, section.buckets, learned)
    n_events = tables.rows(schemas.EVENTS)
    same_cut = found.base is not None and found.base.evaluation_as_of == cuts.times()[EVALUATION]
    base = None if found.base is None else found.base.table_versions
    plan = Build(rows, cuts, first_event, n_events, base, same_cut, learned)
    with ThreadPoolExecutor(len(_ITEM_TABLES)) as pool:
        # What can be known about items before anything is counted is found out beside the counting.
        known = {name: pool.submit(_known_items, context, items, cuts.times()[name]) for name in _ITEM_TABLES}
        unindexed = build(context, plan, lambda counts: _write_items(context, cuts, counts, known, learned))
    unindexed += 0 if found.base is None else found.base.unindexed_events
    State(
        mark,
        version,
        {spec.name: tables.version(spec) or 0 for spec in USER_TABLES},
        as_of.astimezone(dt.UTC),
        cuts.times()[EVALUATION],
        context.as_of is None,
        unindexed,
        context.run_id,
    ).write(tables, context.transaction)
    moved = normalization_drift(tables, context.run_id)
    return StageResult(row_counts=_row_counts(context), figures=moved, message=f"as of {as_of:%Y-%m-%d %H:%M} UTC")


def _version(context: StageContext) -> int:
    """The version of `events` that this run reads, however many follow while it does."""
    version = context.tables.version(schemas.EVENTS)
    if version is None:
        context.tables.read(schemas.EVENTS)  # says which stage to run
        raise AssertionError("a table without a version was read")
    return version


def _time_range(context: StageContext, events: DataFrame) -> tuple[dt.datetime, int]:
    """The moment the features are made for, and the second of the first event before it.

    Only the first and the last dates are read.
    """
    limit = context.as_of
    last_date = None if limit is None else limit.astimezone(dt.UTC).date()
    dates = sorted(dt.date.fromisoformat(one[c.EVENT_DATE]) for one in context.tables.partitions(schemas.EVENTS))
    dates = [date for date in dates if last_date is None or date <= last_date]
    # The events of the last date may all come after `--as-of`.
    wanted = events.where(F.col(c.EVENT_DATE).isin([*dates[:1], *dates[-2:]])) if dates else events.limit(0)
    used = wanted if limit is None else wanted.where(F.col(c.EVENT_TIME) < F.lit(limit))
    row = used.agg(
        F.unix_timestamp(F.max(c.EVENT_TIME)).alias("last"), F.unix_timestamp(F.min(c.EVENT_TIME)).alias("first")
    ).first()
    if row is None or row["last"] is None:
        raise InputContractError(
            f"table 'events' has nothing before --as-of {context.as_of}", remedy="give a later --as-of"
        )
    # Cuts are exclusive, so that the latest event itself belongs to the past.
    return limit or _utc(row["last"] + 1), row["first"]


def _utc(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _extend_indices(context: StageContext) -> bool:
    """Number what is new in the catalogue; returns whether there is a new item."""
    tables, run_id = context.tables, context.run_id
    attributes = _attributes(context)
    texts = text_fields(attributes)
    columns = [c.ITEM_ID] if texts else [c.ITEM_ID, c.CATEGORIES]
    items = read_arrow(tables, schemas.ITEM_HISTORY, columns=columns)
    more_items = extend_index(tables, schemas.ITEM_INDEX, items, [c.ITEM_ID], c.ITEM_IDX, 0, run_id)
    if texts:
        # Whole texts stay with the executors.
        values = coded_values(tables.read(schemas.ITEM_HISTORY), attributes).toArrow()
    else:
        values = category_values(items, category_fields(attributes))
    extend_index(tables, schemas.CATEGORY_INDEX, values, [c.FIELD, c.VALUE], c.CODE, FIRST_CODE, run_id)
    return more_items


def _prepare(context: StageContext, found: NewEvents) -> None:
    """Say what is done, and undo what an attempt that did not finish has changed of what is built upon."""
    if found.base is None:
        context.progress.notify(f"all events are read: {found.because}")
        return
    for spec in USER_TABLES:
        context.tables.restore(spec, found.base.table_versions[spec.name])


def _learned_fills(context: StageContext) -> dict[str, Missing]:
    cleaning = context.config.cleaning
    return imputation.learned({c.PRICE: cleaning.price, c.QUANTITY: cleaning.quantity})


def _attributes(context: StageContext) -> Mapping[str, ItemAttribute]:
    return {} if context.config.input.items is None else context.config.input.items.attributes


def _known_items(context: StageContext, history: DataFrame, as_of: dt.datetime) -> DataFrame:
    return catalogue_at(history, _attributes(context), as_of).localCheckpoint(eager=True)


def _write_items(
    context: StageContext,
    cuts: Cuts,
    counts: Counts,
    known: Mapping[str, Future[DataFrame]],
    learned: Mapping[str, Missing],
) -> None:
    """Popularity, features and parameters of items as of every cut, and the cuts themselves."""
    section, tables, times = context.config.features, context.tables, cuts.times()
    methods = dict(zip(AMOUNTS, (section.price, section.quantity), strict=True))
    cut_of = {name: cut for cut, name in enumerate(_POPULARITY)}

    def write(name: str) -> None:
        features, parameters = _ITEM_TABLES[name]
        prices = _prices(context, counts, cut_of[name])
        fitted = {"events": fit_amounts(counts, cut_of[name], methods, learned)}
        fitted["items"] = _write_item_features(context, features, times[name], known[name].result(), prices)
        tables.replace_few(parameters, _parameter_rows(context, times[name], fitted), context.transaction)

    for name, spec in _POPULARITY.items():
        tables.replace_arrow(spec, _popularity(counts, cut_of[name]), context.transaction)
    with ThreadPoolExecutor(len(_ITEM_TABLES)) as pool:
        list(pool.map(write, _ITEM_TABLES))
    stamps = [{c.SNAPSHOT: name, c.AS_OF: moment, c.RUN_ID: context.run_id} for name, moment in times.items()]
    tables.replace_few(schemas.SNAPSHOTS, stamps, context.transaction)


def _popularity(counts: Counts, cut: int) -> pa.Table:
    ever, recent = counts.of_items("ever")[cut], counts.of_items("recent")[cut]
    known = np.flatnonzero(ever)
    return pa.table({c.ITEM_IDX: known, c.POPULARITY: ever[known], c.RECENT_POPULARITY: recent[known]})


def _prices(context: StageContext, counts: Counts, cut: int) -> DataFrame:
    """(item_id, price) of the items that have one."""
    numbers, prices = mean_prices(counts, cut)
    index = read_arrow(context.tables, schemas.ITEM_INDEX, columns=[c.ITEM_ID, c.ITEM_IDX]).sort_by(c.ITEM_IDX)
    return context.spark.createDataFrame(
        pa.table({c.ITEM_ID: index[c.ITEM_ID].take(pa.array(numbers)), c.PRICE: prices})
    )


def _write_item_features(
    context: StageContext, spec: TableSpec, as_of: dt.datetime, known: DataFrame, prices: DataFrame
) -> dict[str, Parameters]:
    """Write one row an item of the index and return what its numbers were normalised by."""
    section, tables = context.config.features, context.tables
    attributes = _attributes(context)
    described = described_items(known, prices, attributes, section).localCheckpoint(eager=True)
    parameters = fit_numbers(described, attributes, section)
    # From here on without Spark, whose jobs would take longer to plan than to run.
    rows = item_features(
        described.select(c.ITEM_ID, c.CATEGORIES, c.NUMBERS, c.VECTORS, c.VALID_FROM, c.VALID_TO).toArrow(),
        read_arrow(tables, schemas.ITEM_INDEX),
        read_arrow(tables, schemas.CATEGORY_INDEX),
        coded_fields(attributes),
        number_fields(attributes),
        vector_sizes(attributes),
        as_of,
    )
    tables.replace_arrow(spec, rows, context.transaction)
    return parameters


def _parameter_rows(
    context: StageContext, as_of: dt.datetime, fitted: Mapping[str, Mapping[str, Parameters]]
) -> list[dict[str, object]]:
    return [
        {
            c.TABLE_NAME: table,
            c.COLUMN_NAME: column,
            c.METHOD: one.method,
            c.CENTER: one.center,
            c.SCALE: one.scale,
            c.FILL: one.fill,
            c.AS_OF: as_of,
            c.RUN_ID: context.run_id,
        }
        for table, parameters in fitted.items()
        for column, one in parameters.items()
    ]


def _row_counts(context: StageContext) -> dict[str, int]:
    """Rows of what was written, from the statistics in Delta's log: no table is read for it."""
    specs = (schemas.ITEM_INDEX, schemas.USER_SEQUENCES, schemas.ITEM_FEATURES, schemas.ITEM_NEIGHBOURS)
    return {spec.name: context.tables.rows(spec) for spec in (schemas.EVENTS, *specs)}
