"""Raw catalogue to items: parse, judge, mark duplicates; missing attributes are filled and flagged."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import parsing, rules
from recbatch.cleaning.duplicates import mark_outcome
from recbatch.cleaning.raw import read_raw
from recbatch.config.sections import ItemAttribute, ItemsInput, RawColumn
from recbatch.tables import columns as c
from recbatch.transforms import imputation
from recbatch.transforms.attributes import attribute_column, pack_attributes

_FIXED = (c.ITEM_ID, c.TITLE, c.VALID_FROM, c.VALID_TO)


def parse_items(spark: SparkSession, source: ItemsInput) -> tuple[DataFrame, list[str]]:
    """Every row of the catalogue with its typed values, `reasons` and `outcome`, and all reason codes.

    Of several rows of one item the one that became valid last is kept.
    """
    parsing.check_time(spark, source.time)
    wanted = _wanted(source)
    raw = read_raw(spark, source, wanted)
    raw = raw.withColumns({name: F.lit(None).cast("string") for name in _FIXED if name not in wanted})
    values = _typed(raw, source)
    conditions = _faults(source, values)
    rows = raw.withColumn("_reasons", rules.reasons(conditions)).select(
        *[value.alias(name) for name, value in values.items()],
        F.col("_reasons").alias(c.REASONS),
        F.when(F.col("_reasons") != "", F.col(c.RAW_RECORD)).alias(c.RAW_RECORD),
        c.SOURCE_FILE,
    )
    newest_first = F.col(c.VALID_FROM).desc_nulls_last()
    marked = mark_outcome(rows, [c.ITEM_ID], list(values), prefer=[newest_first])
    return marked, [rules.MALFORMED, *conditions]


def _wanted(source: ItemsInput) -> dict[str, RawColumn]:
    declared = {
        c.ITEM_ID: source.item_id,
        c.TITLE: source.title,
        c.VALID_FROM: source.valid_from,
        c.VALID_TO: source.valid_to,
    }
    wanted = {name: column for name, column in declared.items() if column is not None}
    return wanted | {attribute_column(name): attribute.source for name, attribute in source.attributes.items()}


def _typed(raw: DataFrame, source: ItemsInput) -> dict[str, Column]:
    values = {name: parsing.text(F.col(name)) for name in (c.ITEM_ID, c.TITLE)}
    values |= {name: parsing.timestamp(raw, name, source.time) for name in (c.VALID_FROM, c.VALID_TO)}
    return values | {
        attribute_column(name): _attribute(name, attribute) for name, attribute in source.attributes.items()
    }


def _attribute(name: str, attribute: ItemAttribute) -> Column:
    raw = F.col(attribute_column(name))
    if attribute.kind == "number":
        return parsing.number(raw)
    if attribute.separator is None:
        return parsing.text(raw)
    # Separators without a value between them are a missing value.
    values = F.replace(raw.cast("string"), F.lit(attribute.separator), F.lit(" "))
    return F.when(parsing.text(values).isNotNull(), parsing.text(raw))


def _faults(source: ItemsInput, values: dict[str, Column]) -> dict[str, Column]:
    faults = {f"missing_{c.ITEM_ID}": values[c.ITEM_ID].isNull()}
    faults |= {f"invalid_{name}": parsing.unparsed(F.col(name), values[name]) for name in (c.VALID_FROM, c.VALID_TO)}
    for name, attribute in source.attributes.items():
        value = values[attribute_column(name)]
        if attribute.kind == "number":
            faults[f"invalid_{name}"] = parsing.unparsed(F.col(attribute_column(name)), value)
        if attribute.missing.strategy == "drop":
            faults[f"missing_{name}"] = value.isNull()
    return faults


def finish_items(accepted: DataFrame, source: ItemsInput, run_id: str) -> DataFrame:
    """The accepted rows as the table `items`."""
    strategies = {attribute_column(name): attribute.missing for name, attribute in source.attributes.items()}
    filled = imputation.apply(accepted, imputation.fit(accepted, strategies))
    return pack_attributes(filled, source.attributes).withColumn(c.RUN_ID, F.lit(run_id))


def items_of_log(events: DataFrame, run_id: str) -> DataFrame:
    """A catalogue made of the ids in the log, for a shop that gives none.

    An item is valid from its first event on: as of an earlier date nobody could know that it exists.
    """
    text = F.lit(None).cast("string")
    return (
        events.groupBy(c.ITEM_ID)
        .agg(F.min(c.EVENT_TIME).alias(c.VALID_FROM))
        .select(
            c.ITEM_ID,
            text.alias(c.TITLE),
            F.create_map().cast("map<string,array<string>>").alias(c.CATEGORIES),
            F.create_map().cast("map<string,double>").alias(c.NUMBERS),
            F.array().cast("array<string>").alias(c.IMPUTED),
            c.VALID_FROM,
            F.lit(None).cast("timestamp").alias(c.VALID_TO),
            text.alias(c.SOURCE_FILE),
            F.lit(run_id).alias(c.RUN_ID),
        )
    )
