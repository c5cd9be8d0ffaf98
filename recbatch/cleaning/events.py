"""Raw behaviour log to events: parse, judge, mark duplicates, in one pass over the files."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import parsing, rules
from recbatch.cleaning.duplicates import mark_outcome
from recbatch.cleaning.raw import CORRUPT, read_raw
from recbatch.config.sections import CleaningSection, EventsInput, RawColumn
from recbatch.tables import columns as c
from recbatch.transforms import imputation

_TEXTS = (c.USER_ID, c.ITEM_ID, c.BASKET_ID, c.QUERY)
_NUMBERS = (c.QUANTITY, c.PRICE, c.WEIGHT)
_VALUES = (*_TEXTS, c.EVENT_TYPE, c.EVENT_TIME, *_NUMBERS)
UNKNOWN_ITEM = "unknown_item"
# Broadcasting the ids of a catalogue saves the log a shuffle as long as every executor can hold them.
_BROADCAST_ITEMS = 2_000_000


def parse_events(
    spark: SparkSession, source: EventsInput, cleaning: CleaningSection, known_items: DataFrame | None, item_count: int
) -> tuple[DataFrame, list[str]]:
    """Every row of the log with its typed values, `reasons` and `outcome`, and all reason codes that can occur.

    `known_items` holds the `item_id` of the catalogue; None where there is none.
    """
    parsing.check_time(spark, source.time)
    wanted = {name: _declared(source, name) for name in _VALUES}
    raw = read_raw(spark, source, {name: column for name, column in wanted.items() if column is not None})
    raw = raw.withColumns({name: F.lit(None).cast("string") for name, column in wanted.items() if column is None})
    values = _typed(raw, source)
    faults = _parse_faults(raw, values, source, cleaning)
    # The typed values replace the raw columns of the same name, so the faults are judged in the same projection.
    parsed = raw.select(
        *[value.alias(name) for name, value in values.items()],
        rules.reasons(faults).alias("_faults"),
        CORRUPT,
        c.RAW_RECORD,
        c.SOURCE_FILE,
    )
    conditions = rules.configured(cleaning.rules, parsed.select(*_VALUES))
    conditions |= imputation.to_drop({c.QUANTITY: cleaning.quantity, c.PRICE: cleaning.price})
    if known_items is not None and cleaning.unknown_items == "reject":
        parsed = _with_known(parsed, known_items, item_count)
        conditions[UNKNOWN_ITEM] = F.col(c.ITEM_ID).isNotNull() & F.col("_known").isNull()
    parsed = parsed.withColumn(c.REASONS, _joined(F.col("_faults"), rules.reasons(conditions)))
    rows = parsed.select(
        *_VALUES, c.REASONS, F.when(F.col(c.REASONS) != "", F.col(c.RAW_RECORD)).alias(c.RAW_RECORD), c.SOURCE_FILE
    )
    codes = [rules.MALFORMED, *faults, *conditions]
    return mark_outcome(rows, cleaning.duplicate_key, _VALUES), codes


def _joined(faults: Column, broken_rules: Column) -> Column:
    """Both lists of codes as one; what cannot be parsed is malformed once."""
    both = F.concat_ws(rules.SEPARATOR, F.nullif(faults, F.lit("")), F.nullif(broken_rules, F.lit("")))
    return F.when(F.col(CORRUPT).isNotNull(), faults).otherwise(both)


def _declared(source: EventsInput, name: str) -> RawColumn | None:
    column: RawColumn | None = getattr(source.columns, name)
    return column


def _typed(raw: DataFrame, source: EventsInput) -> dict[str, Column]:
    kind = parsing.text(F.col(c.EVENT_TYPE))
    if source.event_types:
        mapping = F.create_map(*[F.lit(part) for pair in source.event_types.items() for part in pair])
        kind = F.element_at(mapping, kind)
    return {
        **{name: parsing.text(F.col(name)) for name in _TEXTS},
        c.EVENT_TYPE: kind,
        c.EVENT_TIME: parsing.timestamp(raw, c.EVENT_TIME, source.time),
        **{name: parsing.number(F.col(name)) for name in _NUMBERS},
    }


def _parse_faults(
    raw: DataFrame, values: Mapping[str, Column], source: EventsInput, cleaning: CleaningSection
) -> dict[str, Column]:
    moment = values[c.EVENT_TIME]
    faults = {f"missing_{name}": values[name].isNull() for name in (c.USER_ID, c.ITEM_ID)}
    faults |= {f"missing_{name}": parsing.text(F.col(name)).isNull() for name in (c.EVENT_TYPE, c.EVENT_TIME)}
    faults |= {f"invalid_{name}": parsing.unparsed(F.col(name), values[name]) for name in (c.EVENT_TIME, *_NUMBERS)}
    faults["unknown_event_type"] = parsing.unparsed(F.col(c.EVENT_TYPE), values[c.EVENT_TYPE])
    faults["event_time_out_of_range"] = parsing.outside(moment, source.time)
    return faults


def _with_known(parsed: DataFrame, known_items: DataFrame, item_count: int) -> DataFrame:
    known = known_items.select(F.col(c.ITEM_ID), F.lit(True).alias("_known"))
    if item_count <= _BROADCAST_ITEMS:
        known = F.broadcast(known)
    return parsed.join(known, on=c.ITEM_ID, how="left")


def finish_events(accepted: DataFrame, cleaning: CleaningSection, run_id: str) -> DataFrame:
    """The accepted rows as the table `events`: missing values filled and flagged, weight 1 where the log has none."""
    strategies = {c.QUANTITY: cleaning.quantity, c.PRICE: cleaning.price}
    filled = imputation.apply(accepted, imputation.fit(accepted, strategies))
    return filled.withColumns(
        {
            c.WEIGHT: F.coalesce(c.WEIGHT, F.lit(1.0)),
            c.EVENT_DATE: F.to_date(c.EVENT_TIME),
            c.RUN_ID: F.lit(run_id),
        }
    )
