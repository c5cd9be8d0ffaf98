"""Items as numbers: category codes and normalised values, fitted on what was known at a date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute
from recbatch.config.sections import FeaturesSection
from recbatch.tables import columns as c
from recbatch.transforms import imputation, normalization
from recbatch.transforms.attributes import (
    ITEM_PRICE,
    attribute_column,
    fields,
    number_fields,
    pack_attributes,
    strategies,
    unpack_attributes,
)
from recbatch.transforms.parameters import Parameters

MISSING_CODE = 0
FIRST_CODE = 1


def category_values(items: pa.Table) -> pa.Table:
    """The (field, value) pairs of the catalogue, given its column `categories`."""
    maps = pa.concat_arrays(items[c.CATEGORIES].chunks) if len(items) else pa.array([], items[c.CATEGORIES].type)
    values = maps.items
    return pa.table({c.FIELD: maps.keys.take(pc.list_parent_indices(values)), c.VALUE: values.flatten()})


def valid_at(as_of: dt.datetime) -> Column:
    """Whether an item is in the catalogue at `as_of`; open ends are valid for ever."""
    moment = F.lit(as_of)
    started = F.col(c.VALID_FROM).isNull() | (F.col(c.VALID_FROM) <= moment)
    return started & (F.col(c.VALID_TO).isNull() | (F.col(c.VALID_TO) > moment))


def versions_at(history: DataFrame, as_of: dt.datetime) -> DataFrame:
    """One row an item of `item_history` that was known before `as_of` and had begun by then.

    Of what was known of a version the latest counts; of an item's versions one that is valid at `as_of`, else ended
    ones, and of several the one that began last.
    """
    moment = F.lit(as_of)
    known = F.col(c.KNOWN_FROM).isNull() | (F.col(c.KNOWN_FROM) < moment)
    begun = F.col(c.VALID_FROM).isNull() | (F.col(c.VALID_FROM) <= moment)
    latest = Window.partitionBy(c.ITEM_ID, c.VALID_FROM).orderBy(F.col(c.KNOWN_FROM).desc_nulls_last())
    best = Window.partitionBy(c.ITEM_ID).orderBy(valid_at(as_of).desc(), F.col(c.VALID_FROM).desc_nulls_last())
    # One shuffle: what lies together by item lies together by version.
    rows = history.where(known & begun).repartition(c.ITEM_ID)
    rows = rows.withColumn("_place", F.row_number().over(latest)).where("_place = 1")
    return rows.withColumn("_place", F.row_number().over(best)).where("_place = 1").drop("_place", c.KNOWN_FROM)


def attributes_as_of(
    history: DataFrame,
    prices: DataFrame,
    attributes: Mapping[str, ItemAttribute],
    section: FeaturesSection,
    as_of: dt.datetime,
) -> DataFrame:
    """The catalogue as it was known at `as_of`, with attributes as maps and missing ones filled by what was known then.

    history: as the table `item_history`. prices: (item_id, price), the mean price of an item in the log, which
    `numbers` gains as `item_price`. Items that were not known or not valid yet have no row.
    """
    price = prices.select(c.ITEM_ID, F.col(c.PRICE).alias(attribute_column(ITEM_PRICE)))
    known = unpack_attributes(versions_at(history, as_of), attributes)
    with_price = known.join(price, on=c.ITEM_ID, how="left").localCheckpoint(eager=True)
    missing = {name: attribute.missing for name, attribute in attributes.items()} | {ITEM_PRICE: section.item_price}
    fills = imputation.fit(with_price, strategies(missing), fields(attributes))
    filled = imputation.apply(with_price, fills)
    return pack_attributes(filled, {**attributes, ITEM_PRICE: _PRICE_ATTRIBUTE})


_PRICE_ATTRIBUTE = ItemAttribute.model_validate({"source": ITEM_PRICE, "kind": "number"})


def fit_numbers(
    described: DataFrame, attributes: Mapping[str, ItemAttribute], section: FeaturesSection
) -> dict[str, Parameters]:
    """Normalisation parameters of every numeric attribute, over the items of `attributes_as_of`."""
    names = number_fields(attributes)
    columns = described.select(*[F.col(c.NUMBERS)[name].alias(name) for name in names])
    return normalization.fit(columns, dict.fromkeys(names, section.numbers))


def item_features(
    described: DataFrame,
    item_index: DataFrame,
    category_index: DataFrame,
    fields: list[str],
    numbers: list[str],
    as_of: dt.datetime,
) -> DataFrame:
    """One row an entry of `item_index`, aligned with it; an item that `described` lacks has nothing but missing values.

    fields, numbers: the names of the category and of the number attributes, in the order of the columns' entries.
    """
    values = described.select(c.ITEM_ID, F.explode(c.CATEGORIES).alias(c.FIELD, "values")).select(
        c.ITEM_ID, c.FIELD, F.explode("values").alias(c.VALUE)
    )
    coded = (
        values.join(category_index, on=[c.FIELD, c.VALUE])
        .groupBy(c.ITEM_ID)
        .agg(F.collect_list(F.struct(c.FIELD, c.CODE)).alias("_codes"))
    )
    missing = F.lit(float("nan"))
    values_of_numbers = [F.coalesce(F.col(c.NUMBERS)[name], missing).cast("float") for name in numbers]
    rows = (
        item_index.select(c.ITEM_ID, c.ITEM_IDX)
        .join(described.select(c.ITEM_ID, c.NUMBERS, valid_at(as_of).alias("_valid")), on=c.ITEM_ID, how="left")
        .join(coded, on=c.ITEM_ID, how="left")
    )
    return rows.select(
        c.ITEM_IDX,
        c.ITEM_ID,
        F.array(*[_codes_of(name) for name in fields]).cast("array<array<int>>").alias(c.CATEGORIES),
        F.array(*values_of_numbers).cast("array<float>").alias(c.NUMBERS),
        F.coalesce("_valid", F.lit(False)).alias(c.ELIGIBLE),
    )


def _codes_of(field: str) -> Column:
    """The sorted codes of one field, or the code for a missing value."""
    mine = F.filter("_codes", lambda entry: entry[c.FIELD] == field)
    codes = F.array_sort(F.transform(mine, lambda entry: entry[c.CODE]))
    return F.when(F.size(codes) > 0, codes).otherwise(F.array(F.lit(MISSING_CODE)))
