"""Raw catalogue to items: parse, judge, mark duplicates; missing attributes are filled and flagged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from recbatch.cleaning import parsing, rules, vectors
from recbatch.cleaning.arrivals import Arrived
from recbatch.cleaning.contract import Contract
from recbatch.cleaning.duplicates import mark_outcome
from recbatch.cleaning.item_history import current_items
from recbatch.cleaning.raw import CORRUPT, RawRows, read_raw
from recbatch.config.inputs import ItemAttribute, ItemsInput, RawColumn
from recbatch.tables import columns as c
from recbatch.transforms import imputation
from recbatch.transforms.attributes import attribute_column, fields, pack_attributes, strategies
from recbatch.transforms.imputation import Fill
from recbatch.transforms.texts import has_words

_TIMES = (c.VALID_FROM, c.VALID_TO)
_FIXED = (c.ITEM_ID, c.TITLE, *_TIMES)


def parse_items(
    spark: SparkSession, source: ItemsInput, arrived: Arrived, contract: Contract | None = None
) -> tuple[DataFrame, list[str]]:
    """Every row of the catalogue with its typed values, `outcome` and `reasons`, a mask of the codes returned with it.

    Rows of one item that become valid at different times are its versions, and all are kept.
    """
    parsing.check_time(spark, source.time)
    wanted = _wanted(source)
    faults = _faults(source, wanted)
    frames = [_judged(raw, wanted, source, faults) for raw in read_raw(spark, source, wanted, arrived, contract)]
    values = [*_FIXED, *map(attribute_column, source.attributes)]
    marked = mark_outcome(reduce(DataFrame.unionByName, frames), [c.ITEM_ID, c.VALID_FROM], values)
    return marked, rules.all_codes(faults)


def _judged(raw: RawRows, wanted: dict[str, RawColumn], source: ItemsInput, faults: dict[str, Column]) -> DataFrame:
    """As with events, a layer of texts and one of typed values, so that no expression holds another one twice."""
    kinds = {field.name: field.dataType for field in raw.rows.schema}
    texts = [_trimmed(name, source, kinds[name]).alias(_text(name)) for name in wanted]
    rows = raw.rows.select("*", *texts)
    values = {
        name: F.col(_text(name)) if name in wanted else F.lit(None).cast("string") for name in (c.ITEM_ID, c.TITLE)
    }
    values |= {name: _time(rows, name, wanted, source) for name in _TIMES}
    for name, attribute in source.attributes.items():
        column = attribute_column(name)
        values[column] = _typed(F.col(_text(column)), attribute, kinds[column])
    kept = [CORRUPT, c.SOURCE_FILE, *raw.needs, *map(_text, wanted)]
    rows = rows.select(*kept, *[value.alias(name) for name, value in values.items()])
    rows = rows.withColumn(c.REASONS, rules.mask(faults))
    record = F.when(F.col(c.REASONS) != 0, raw.record).alias(c.RAW_RECORD)
    return rows.select(*values, c.REASONS, record, c.SOURCE_FILE)


def _wanted(source: ItemsInput) -> dict[str, RawColumn]:
    declared = {
        c.ITEM_ID: source.item_id,
        c.TITLE: source.title,
        c.VALID_FROM: source.valid_from,
        c.VALID_TO: source.valid_to,
    }
    wanted = {name: column for name, column in declared.items() if column is not None}
    return wanted | {attribute_column(name): attribute.source for name, attribute in source.attributes.items()}


def _text(name: str) -> str:
    return f"_text_{name}"


def _trimmed(name: str, source: ItemsInput, kind: DataType) -> Column:
    raw, trimmed = F.col(name), parsing.text(F.col(name))
    attributes = {attribute_column(one): attribute for one, attribute in source.attributes.items()}
    if name not in attributes:
        return trimmed
    separator = attributes[name].separator
    if attributes[name].kind == "vector":
        return vectors.given(raw, kind)
    if attributes[name].kind == "text":
        # A text without a letter or a digit is a missing value.
        return F.when(has_words(trimmed), trimmed)
    if separator is None:
        return trimmed
    # Separators without a value between them are a missing value.
    values = F.replace(raw.cast("string"), F.lit(separator), F.lit(" "))
    return F.when(parsing.text(values).isNotNull(), trimmed)


def _typed(trimmed: Column, attribute: ItemAttribute, kind: DataType) -> Column:
    if attribute.size is not None:
        return vectors.vector(trimmed, kind, attribute.size)
    return parsing.number(trimmed) if attribute.kind == "number" else trimmed


def _time(rows: DataFrame, name: str, wanted: dict[str, RawColumn], source: ItemsInput) -> Column:
    if name not in wanted:
        return F.lit(None).cast("timestamp")
    return parsing.timestamp(F.col(name), F.col(_text(name)), rows.schema[name].dataType, source.time)


def _faults(source: ItemsInput, wanted: dict[str, RawColumn]) -> dict[str, Column]:
    """What can be wrong with a row, over the layers of texts and of typed values."""

    def unparsed(name: str) -> Column:
        return parsing.unparsed(F.col(_text(name)), F.col(name))

    faults = {f"missing_{c.ITEM_ID}": F.col(c.ITEM_ID).isNull()}
    faults |= {f"invalid_{name}": unparsed(name) for name in _TIMES if name in wanted}
    for name, attribute in source.attributes.items():
        if attribute.kind in ("number", "vector"):
            faults[f"invalid_{name}"] = unparsed(attribute_column(name))
        if attribute.missing.strategy == "drop":
            faults[f"missing_{name}"] = F.col(attribute_column(name)).isNull()
    return faults


def fit_item_fills(accepted: DataFrame, source: ItemsInput) -> dict[str, Fill]:
    """How missing attributes are filled, by working column; models are compared with group means."""
    missing = {name: attribute.missing for name, attribute in source.attributes.items()}
    current = current_items(accepted)
    return imputation.fit(current, strategies(missing), fields(source.attributes), checked=True)


def finish_items(accepted: DataFrame, source: ItemsInput, fills: Mapping[str, Fill], run_id: str) -> DataFrame:
    """The accepted rows with the columns of the table `items`; a row a version of an item."""
    filled = imputation.apply(accepted, fills)
    return pack_attributes(filled, source.attributes).withColumn(c.RUN_ID, F.lit(run_id))


def extend_items_of_log(known: DataFrame | None, events: DataFrame, run_id: str) -> DataFrame:
    """A catalogue made of the ids in the log, for a shop that gives none: that of before and the items of new events.

    An item is valid from its first event on: as of an earlier date nobody could know that it exists.
    """
    first = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_TIME).alias(c.VALID_FROM))
    if known is not None:
        both = known.select(c.ITEM_ID, c.VALID_FROM).union(first)
        first = both.groupBy(c.ITEM_ID).agg(F.min(c.VALID_FROM).alias(c.VALID_FROM))
    text = F.lit(None).cast("string")
    return first.select(
        c.ITEM_ID,
        text.alias(c.TITLE),
        F.create_map().cast("map<string,array<string>>").alias(c.CATEGORIES),
        F.create_map().cast("map<string,double>").alias(c.NUMBERS),
        F.create_map().cast("map<string,array<float>>").alias(c.VECTORS),
        F.array().cast("array<string>").alias(c.IMPUTED),
        c.VALID_FROM,
        F.lit(None).cast("timestamp").alias(c.VALID_TO),
        text.alias(c.SOURCE_FILE),
        F.lit(run_id).alias(c.RUN_ID),
    )
