"""Raw behaviour log to typed rows with the reasons against each, in one pass over the files.

The work is laid out in layers (raw, text, typed, judged), each a projection over the columns of the one before, so that
no expression holds another one twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import parsing, rules
from recbatch.cleaning.raw import CORRUPT, RawRows, read_raw
from recbatch.config.cleaning import CleaningSection
from recbatch.config.inputs import EventsInput, RawColumn
from recbatch.tables import columns as c
from recbatch.transforms import imputation
from recbatch.transforms.imputation import Fill

_TEXTS = (c.USER_ID, c.ITEM_ID, c.BASKET_ID, c.QUERY)
_NUMBERS = (c.QUANTITY, c.PRICE, c.WEIGHT)
VALUES = (*_TEXTS, c.EVENT_TYPE, c.EVENT_TIME, *_NUMBERS)
_KINDS = dict.fromkeys(VALUES, "string") | dict.fromkeys(_NUMBERS, "double") | {c.EVENT_TIME: "timestamp"}
UNKNOWN_ITEM = "unknown_item"
OUT_OF_RANGE, WRONG_UNIT = "event_time_out_of_range", "event_time_wrong_unit"
# Broadcasting the ids of a catalogue saves the log a shuffle as long as every executor can hold them.
_BROADCAST_ITEMS = 2_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_events(
    spark: SparkSession, source: EventsInput, cleaning: CleaningSection, known_items: DataFrame | None, item_count: int
) -> tuple[DataFrame, list[str]]:
    """Every row of the log with its typed values and `reasons`, a mask of the reason codes that are returned with it.

    `raw_record` is filled for rejected rows only. `known_items` holds the `item_id` of the catalogue; None where there
    is none.
    """
    parsing.check_time(spark, source.time)
    declared = {name: column for name in VALUES if (column := _declared(source, name)) is not None}
    frames = [
        _judged(raw, source, cleaning, set(declared), known_items, item_count)
        for raw in read_raw(spark, source, declared)
    ]
    return reduce(DataFrame.unionByName, [rows for rows, _ in frames]), frames[0][1]


def _declared(source: EventsInput, name: str) -> RawColumn | None:
    column: RawColumn | None = getattr(source.columns, name)
    return column


def _judged(
    raw: RawRows,
    source: EventsInput,
    cleaning: CleaningSection,
    declared: set[str],
    known_items: DataFrame | None,
    item_count: int,
) -> tuple[DataFrame, list[str]]:
    kept = [CORRUPT, c.SOURCE_FILE, *raw.needs]
    texts = [parsing.text(F.col(name)).alias(_text(name)) for name in VALUES if name in declared]
    moments = [F.col(c.EVENT_TIME).alias("_time")]
    kind = raw.rows.schema[c.EVENT_TIME].dataType
    rows = raw.rows.select(*kept, *texts, *moments)
    values = _typed(source, declared)
    values[c.EVENT_TIME] = parsing.timestamp(F.col("_time"), F.col(_text(c.EVENT_TIME)), kind, source.time)
    other = parsing.in_other_unit(F.col(_text(c.EVENT_TIME)), kind, source.time).alias("_other_time")
    rows = rows.select("*", *[value.cast(_KINDS[name]).alias(name) for name, value in values.items()], other)
    conditions = _faults(source, declared)
    conditions |= rules.configured(cleaning.rules, rows.select(*VALUES))
    conditions |= imputation.to_drop(cleaning.missing())
    if known_items is not None and cleaning.unknown_items == "reject":
        rows = _with_known(rows, known_items, item_count)
        conditions[UNKNOWN_ITEM] = F.col(c.ITEM_ID).isNotNull() & F.col("_known").isNull()
    rows = rows.withColumn(c.REASONS, rules.mask(conditions))
    record = F.when(F.col(c.REASONS) != 0, raw.record).alias(c.RAW_RECORD)
    return rows.select(*VALUES, c.REASONS, record, c.SOURCE_FILE), rules.all_codes(conditions)


def _text(name: str) -> str:
    return f"_text_{name}"


def _typed(source: EventsInput, declared: set[str]) -> dict[str, Column]:
    """The values by name, from the layer of texts; without the time."""
    values = {name: F.col(_text(name)) if name in declared else F.lit(None) for name in (*_TEXTS, c.EVENT_TYPE)}
    if source.event_types:
        mapping = F.create_map(*[F.lit(part) for pair in source.event_types.items() for part in pair])
        values[c.EVENT_TYPE] = F.element_at(mapping, values[c.EVENT_TYPE])
    return values | {name: parsing.number(F.col(_text(name))) if name in declared else F.lit(None) for name in _NUMBERS}


def _faults(source: EventsInput, declared: set[str]) -> dict[str, Column]:
    """What can be wrong with a row by itself, from the layers of texts and of typed values."""
    required = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME)
    faults = {f"missing_{name}": F.col(_text(name)).isNull() for name in required}
    moment, other = F.col(c.EVENT_TIME), F.col("_other_time")
    outside = parsing.outside(moment, source.time)
    unparsed = {
        name: parsing.unparsed(F.col(_text(name)), F.col(name))
        for name in (c.EVENT_TIME, *_NUMBERS)
        if name in declared
    }
    # Nothing tells seconds from milliseconds where every time is allowed.
    bounded = source.time.earliest is not None or source.time.latest is not None
    wrong_unit = other.isNotNull() & ~parsing.outside(other, source.time) & F.lit(bounded)
    faults[WRONG_UNIT] = wrong_unit & (outside | moment.isNull())
    faults |= {f"invalid_{name}": condition for name, condition in unparsed.items() if name != c.EVENT_TIME}
    faults[f"invalid_{c.EVENT_TIME}"] = unparsed[c.EVENT_TIME] & ~F.coalesce(wrong_unit, F.lit(False))
    faults["unknown_event_type"] = parsing.unparsed(F.col(_text(c.EVENT_TYPE)), F.col(c.EVENT_TYPE))
    faults[OUT_OF_RANGE] = outside & ~F.coalesce(wrong_unit, F.lit(False))
    return faults


def _with_known(parsed: DataFrame, known_items: DataFrame, item_count: int) -> DataFrame:
    known = known_items.select(F.col(c.ITEM_ID), F.lit(True).alias("_known"))
    if item_count <= _BROADCAST_ITEMS:
        known = F.broadcast(known)
    return parsed.join(known, on=c.ITEM_ID, how="left")


def latest_event(events: DataFrame) -> dt.datetime | None:
    """The latest time in the table `events`, of which only the last date is read; None where it is empty."""
    last = events.agg(F.max(c.EVENT_DATE)).first()
    if last is None or last[0] is None:
        return None
    row = events.where(F.col(c.EVENT_DATE) == F.lit(last[0])).agg(F.unix_micros(F.max(c.EVENT_TIME))).first()
    return None if row is None else _EPOCH + dt.timedelta(microseconds=row[0])


def fit_event_fills(accepted: DataFrame, cleaning: CleaningSection) -> dict[str, Fill]:
    """How missing values of events are filled."""
    return imputation.fit(accepted, cleaning.missing())


def finish_events(accepted: DataFrame, fills: Mapping[str, Fill], run_id: str) -> DataFrame:
    """The accepted rows as the table `events`: missing values filled and flagged."""
    filled = imputation.apply(accepted, fills)
    return filled.withColumns({c.EVENT_DATE: F.to_date(c.EVENT_TIME), c.RUN_ID: F.lit(run_id)})
