"""The stage `features`: the same features at three cuts, for the release, for the test and for the validation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute, Missing
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.features.cooccurrence import item_neighbours
from recbatch.features.index import new_entries
from recbatch.features.item_features import (
    FIRST_CODE,
    attributes_as_of,
    category_values,
    fit_numbers,
    item_features,
)
from recbatch.features.popularity import item_popularity
from recbatch.features.user_sequences import behaviours, sequences, targets
from recbatch.stages.inputs import normalization_drift
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from recbatch.transforms import imputation, normalization
from recbatch.transforms.attributes import category_fields, number_fields
from recbatch.transforms.parameters import Parameters


@dataclass(frozen=True)
class Snapshot:
    """One cut of the features: what was known at `as_of`, and the tables that hold it."""

    name: str
    as_of: dt.datetime
    user_sequences: TableSpec
    item_features: TableSpec
    normalization: TableSpec


def build_features(context: StageContext) -> StageResult:
    """`events` and `items` to indices, sequences, item features and neighbours at every cut.

    Raises:
        InputContractError: the log is shorter than the holdout, or nothing of it is before `--as-of`.
    """
    tables = context.tables
    section = context.config.features
    events, items = tables.read(schemas.EVENTS), tables.read(schemas.ITEM_HISTORY)
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
    )
    evaluation = Snapshot(
        "evaluation",
        test_cut,
        schemas.EVALUATION_USER_SEQUENCES,
        schemas.EVALUATION_ITEM_FEATURES,
        schemas.EVALUATION_NORMALIZATION,
    )
    # What the whole log filled in must not reach an earlier cut: every cut fills it anew.
    known = imputation.forget(events.where(F.col(c.EVENT_TIME) < F.lit(as_of)), _learned_fills(context))
    index, types = tables.read(schemas.ITEM_INDEX), context.config.input.events.types()
    rows = behaviours(known, index, types, section.buckets).localCheckpoint(eager=True)
    for snapshot in (release, evaluation):
        context.progress.notify(f"features as of {snapshot.as_of:%Y-%m-%d} ({snapshot.name})")
        _write_snapshot(context, snapshot, rows, known, items)
    later = rows.where(F.col(c.EVENT_TIME) >= int(test_cut.timestamp()))
    tables.replace(schemas.EVALUATION_TARGETS, targets(later), context.transaction)
    _write_priors(context, rows, {"release": as_of, "evaluation": test_cut, "validation": validation_cut})
    moved = normalization_drift(tables, context.run_id)
    return StageResult(row_counts=_row_counts(context), figures=moved, message=f"as of {as_of:%Y-%m-%d %H:%M} UTC")


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
        (schemas.ITEM_INDEX, items.select(c.ITEM_ID).distinct(), c.ITEM_IDX, 0),
        (schemas.CATEGORY_INDEX, category_values(items), c.CODE, FIRST_CODE),
    ):
        key = [name for name in (c.ITEM_ID, c.FIELD, c.VALUE) if name in spec.schema.names]
        known = None if context.tables.version(spec) is None else context.tables.read(spec)
        fresh = new_entries(values, known, key, number, first=first)
        context.tables.append(spec, fresh.withColumn(c.RUN_ID, F.lit(context.run_id)), context.transaction)


def _write_snapshot(
    context: StageContext, snapshot: Snapshot, rows: DataFrame, events: DataFrame, items: DataFrame
) -> None:
    """Write what one cut knows of users and items, each normalised by parameters fitted before the cut."""
    section, tables = context.config.features, context.tables
    past = rows.where(F.col(c.EVENT_TIME) < int(snapshot.as_of.timestamp()))
    past = imputation.apply(past, imputation.fit(past, _learned_fills(context)))
    event_parameters = normalization.fit(past, {c.PRICE: section.price, c.QUANTITY: section.quantity})
    lists = sequences(past, event_parameters, section.sequence_length)
    tables.replace(snapshot.user_sequences, lists, context.transaction)
    known = events.where(F.col(c.EVENT_TIME) < F.lit(snapshot.as_of))
    attributes = context.config.input.items.attributes if context.config.input.items is not None else {}
    item_parameters = _write_item_features(context, snapshot, known, items, attributes)
    parameters = _parameter_rows(context, snapshot, {"events": event_parameters, "items": item_parameters})
    tables.replace(snapshot.normalization, parameters, context.transaction)


def _learned_fills(context: StageContext) -> dict[str, Missing]:
    cleaning = context.config.cleaning
    fills = imputation.learned({c.PRICE: cleaning.price, c.QUANTITY: cleaning.quantity})
    # Behaviours know an item by its number.
    return {name: one if one.by is None else one.model_copy(update={"by": c.ITEM_IDX}) for name, one in fills.items()}


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
        number_fields(attributes),
        snapshot.as_of,
    )
    tables.replace(snapshot.item_features, rows, context.transaction)
    return parameters


def _write_priors(context: StageContext, rows: DataFrame, cuts: Mapping[str, dt.datetime]) -> None:
    """Neighbours and popularity as of every cut, and the cuts themselves.

    The validation cut has no other table: the weights of the score are fitted on what these two could not know.
    """
    section = context.config.features
    neighbours = item_neighbours(rows, section.neighbours, cuts)
    for name, neighbour_table, popularity_table in (
        ("release", schemas.ITEM_NEIGHBOURS, schemas.ITEM_POPULARITY),
        ("evaluation", schemas.EVALUATION_ITEM_NEIGHBOURS, schemas.EVALUATION_ITEM_POPULARITY),
        ("validation", schemas.VALIDATION_ITEM_NEIGHBOURS, schemas.VALIDATION_ITEM_POPULARITY),
    ):
        past = rows.where(F.col(c.EVENT_TIME) < int(cuts[name].timestamp()))
        popularity = item_popularity(past, cuts[name], section.recent_days)
        context.tables.replace(popularity_table, popularity, context.transaction)
        context.tables.replace(neighbour_table, neighbours[name], context.transaction)
    stamps = [(name, as_of, context.run_id) for name, as_of in cuts.items()]
    frame = context.spark.createDataFrame(stamps, schemas.SNAPSHOTS.schema)
    context.tables.replace(schemas.SNAPSHOTS, frame, context.transaction)


def _parameter_rows(
    context: StageContext, snapshot: Snapshot, fitted: Mapping[str, Mapping[str, Parameters]]
) -> DataFrame:
    rows = [
        (table, column, one.method, one.center, one.scale, one.fill, snapshot.as_of, context.run_id)
        for table, parameters in fitted.items()
        for column, one in parameters.items()
    ]
    return context.spark.createDataFrame(rows, schemas.NORMALIZATION.schema)


def _row_counts(context: StageContext) -> dict[str, int]:
    """Rows of what was written, from the statistics in Delta's log: no table is read for it."""
    specs = (schemas.ITEM_INDEX, schemas.USER_SEQUENCES, schemas.ITEM_FEATURES, schemas.ITEM_NEIGHBOURS)
    return {spec.name: context.tables.rows(spec) for spec in (schemas.EVENTS, *specs)}
