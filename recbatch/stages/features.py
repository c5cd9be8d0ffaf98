"""The stage `features`: the same features at three cuts, for the release, for the test and for the validation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import ItemAttribute
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.features.cooccurrence import item_neighbours
from recbatch.features.index import new_entries
from recbatch.features.item_features import (
    FIRST_CODE,
    attributes_as_of,
    category_fields,
    category_values,
    fit_numbers,
    item_features,
)
from recbatch.features.popularity import item_popularity
from recbatch.features.user_sequences import behaviours, sequences, targets
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from recbatch.transforms import normalization
from recbatch.transforms.normalization import Parameters


@dataclass(frozen=True)
class Snapshot:
    """One cut of the features: what was known at `as_of`, and the tables that hold it."""

    name: str
    as_of: dt.datetime
    user_sequences: TableSpec
    item_features: TableSpec
    normalization: TableSpec
    item_neighbours: TableSpec
    item_popularity: TableSpec


def build_features(context: StageContext) -> StageResult:
    """`events` and `items` to indices, sequences, item features and neighbours at every cut.

    Raises:
        InputContractError: the log is shorter than the holdout, or nothing of it is before `--as-of`.
    """
    tables = context.tables
    section = context.config.features
    events, items = tables.read(schemas.EVENTS), tables.read(schemas.ITEMS)
    as_of, first_event = _time_range(context, events)
    test_cut = as_of - dt.timedelta(days=section.holdout_days)
    validation_cut = test_cut - dt.timedelta(days=section.validation_days)
    if validation_cut <= first_event:
        raise InputContractError(
            f"the log begins at {first_event:%Y-%m-%d}, not before the validation cut {validation_cut:%Y-%m-%d}",
            remedy="lower features.holdout_days and features.validation_days, or give a longer log",
        )
    _extend_indices(context, items)
    release = Snapshot(
        "release",
        as_of,
        schemas.USER_SEQUENCES,
        schemas.ITEM_FEATURES,
        schemas.NORMALIZATION,
        schemas.ITEM_NEIGHBOURS,
        schemas.ITEM_POPULARITY,
    )
    evaluation = Snapshot(
        "evaluation",
        test_cut,
        schemas.EVALUATION_USER_SEQUENCES,
        schemas.EVALUATION_ITEM_FEATURES,
        schemas.EVALUATION_NORMALIZATION,
        schemas.EVALUATION_ITEM_NEIGHBOURS,
        schemas.EVALUATION_ITEM_POPULARITY,
    )
    for snapshot in (release, evaluation):
        context.progress.notify(f"features as of {snapshot.as_of:%Y-%m-%d} ({snapshot.name})")
        rows = _write_snapshot(context, snapshot, events, items)
        if snapshot is release:
            later = rows.where(F.col(c.EVENT_TIME) >= int(test_cut.timestamp()))
            tables.replace(schemas.EVALUATION_TARGETS, targets(later), context.transaction)
        else:
            _write_validation(context, rows, validation_cut)
    _write_snapshots(context, {"release": as_of, "evaluation": test_cut, "validation": validation_cut})
    return StageResult(row_counts=_row_counts(context), message=f"as of {as_of:%Y-%m-%d %H:%M} UTC")


def _time_range(context: StageContext, events: DataFrame) -> tuple[dt.datetime, dt.datetime]:
    """The moment the features are made for, and the first event before it."""
    used = events if context.as_of is None else events.where(F.col(c.EVENT_TIME) < F.lit(context.as_of))
    row = used.agg(
        F.unix_timestamp(F.max(c.EVENT_TIME)).alias("last"), F.unix_timestamp(F.min(c.EVENT_TIME)).alias("first")
    ).first()
    if row is None or row["last"] is None:
        raise InputContractError(
            f"table 'events' has nothing before --as-of {context.as_of}", remedy="give a later --as-of"
        )
    # Cuts are exclusive, so that the latest event itself belongs to the past.
    as_of = context.as_of or _utc(row["last"] + 1)
    return as_of, _utc(row["first"])


def _utc(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _extend_indices(context: StageContext, items: DataFrame) -> None:
    for spec, values, number, first in (
        (schemas.ITEM_INDEX, items.select(c.ITEM_ID), c.ITEM_IDX, 0),
        (schemas.CATEGORY_INDEX, category_values(items), c.CODE, FIRST_CODE),
    ):
        key = [name for name in (c.ITEM_ID, c.FIELD, c.VALUE) if name in spec.schema.names]
        known = None if context.tables.version(spec) is None else context.tables.read(spec)
        fresh = new_entries(values, known, key, number, first=first)
        context.tables.append(spec, fresh.withColumn(c.RUN_ID, F.lit(context.run_id)), context.transaction)


def _write_snapshot(context: StageContext, snapshot: Snapshot, events: DataFrame, items: DataFrame) -> DataFrame:
    """Write the four tables of one cut and return the behaviours up to it (of the release: all of them)."""
    config, tables = context.config, context.tables
    past = events.where(F.col(c.EVENT_TIME) < F.lit(snapshot.as_of))
    event_parameters = normalization.fit(
        past, {c.PRICE: config.features.price, c.QUANTITY: config.features.quantity}
    )
    rows = behaviours(
        past, tables.read(schemas.ITEM_INDEX), config.input.events.types(), event_parameters, config.features.buckets
    )
    rows = rows.localCheckpoint(eager=True)
    write = context.transaction
    tables.replace(snapshot.user_sequences, sequences(rows, config.features.sequence_length), write)
    tables.replace(
        snapshot.item_neighbours, item_neighbours(rows, config.features.neighbours, snapshot.as_of), write
    )
    popularity = item_popularity(rows, snapshot.as_of, config.features.recent_days)
    tables.replace(snapshot.item_popularity, popularity, write)
    attributes = config.input.items.attributes if config.input.items is not None else {}
    item_parameters = _write_item_features(context, snapshot, past, items, attributes)
    tables.replace(
        snapshot.normalization,
        _parameter_rows(context, snapshot, {"events": event_parameters, "items": item_parameters}),
        write,
    )
    return rows


def _write_item_features(
    context: StageContext,
    snapshot: Snapshot,
    past: DataFrame,
    items: DataFrame,
    attributes: Mapping[str, ItemAttribute],
) -> dict[str, Parameters]:
    """Write one row an item of the index and return what its numbers were normalised by."""
    section, tables = context.config.features, context.tables
    described = attributes_as_of(items, past, attributes, section, snapshot.as_of).localCheckpoint(eager=True)
    parameters = fit_numbers(described, attributes, section)
    rows = item_features(
        described,
        tables.read(schemas.ITEM_INDEX),
        tables.read(schemas.CATEGORY_INDEX),
        category_fields(attributes),
        parameters,
        snapshot.as_of,
    )
    tables.replace(snapshot.item_features, rows, context.transaction)
    return parameters


def _write_validation(context: StageContext, past: DataFrame, cut: dt.datetime) -> None:
    """Neighbours and popularity as of the validation cut: their weights are fitted on what they could not know."""
    section = context.config.features
    known = past.where(F.col(c.EVENT_TIME) < int(cut.timestamp()))
    neighbours = item_neighbours(known, section.neighbours, cut)
    context.tables.replace(schemas.VALIDATION_ITEM_NEIGHBOURS, neighbours, context.transaction)
    popularity = item_popularity(known, cut, section.recent_days)
    context.tables.replace(schemas.VALIDATION_ITEM_POPULARITY, popularity, context.transaction)


def _parameter_rows(
    context: StageContext, snapshot: Snapshot, fitted: Mapping[str, Mapping[str, Parameters]]
) -> DataFrame:
    rows = [
        (table, column, one.method, one.center, one.scale, snapshot.as_of, context.run_id)
        for table, parameters in fitted.items()
        for column, one in parameters.items()
    ]
    return context.spark.createDataFrame(rows, schemas.NORMALIZATION.schema)


def _write_snapshots(context: StageContext, cuts: Mapping[str, dt.datetime]) -> None:
    rows = [(name, as_of, context.run_id) for name, as_of in cuts.items()]
    frame = context.spark.createDataFrame(rows, schemas.SNAPSHOTS.schema)
    context.tables.replace(schemas.SNAPSHOTS, frame, context.transaction)


def _row_counts(context: StageContext) -> dict[str, int]:
    """Rows of what was written, from the statistics in Delta's log: no table is read for it."""
    specs = (schemas.ITEM_INDEX, schemas.USER_SEQUENCES, schemas.ITEM_FEATURES, schemas.ITEM_NEIGHBOURS)
    return {spec.name: context.tables.rows(spec) for spec in (schemas.EVENTS, *specs)}
