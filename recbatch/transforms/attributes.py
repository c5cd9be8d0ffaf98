"""The declared attributes of an item, as one column each while they are worked on and as maps in the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute, Missing
from recbatch.tables import columns as c
from recbatch.transforms.estimators import Field
from recbatch.transforms.texts import hashed_ngrams

_PREFIX = "attribute_"
ITEM_PRICE = "item_price"


def attribute_column(name: str) -> str:
    """The working column of an attribute; the prefix keeps it from meeting a column of the contract."""
    return f"{_PREFIX}{name}"


def attribute_name(column: str) -> str:
    """The attribute of a working column."""
    return column.removeprefix(_PREFIX)


def category_fields(attributes: Mapping[str, ItemAttribute]) -> list[str]:
    """The category attributes, whose values mean something to people."""
    return sorted(name for name, attribute in attributes.items() if attribute.kind == "category")


def text_fields(attributes: Mapping[str, ItemAttribute]) -> list[str]:
    """The text attributes."""
    return sorted(name for name, attribute in attributes.items() if attribute.kind == "text")


def coded_fields(attributes: Mapping[str, ItemAttribute]) -> list[str]:
    """Category and text attributes in the order of the codes in `item_features.categories`."""
    return sorted([*category_fields(attributes), *text_fields(attributes)])


def vector_sizes(attributes: Mapping[str, ItemAttribute]) -> dict[str, int]:
    """How many numbers each vector attribute has, in the order of `item_features.vectors`."""
    return {name: one.size for name, one in sorted(attributes.items()) if one.size is not None}


def number_fields(attributes: Mapping[str, ItemAttribute]) -> list[str]:
    """The numeric attributes in the order of `item_features.numbers`; the price in the log comes last."""
    return number_names(name for name, attribute in attributes.items() if attribute.kind == "number")


def number_names(names: Iterable[str]) -> list[str]:
    """The names of number attributes in that order; the price may be among them or not."""
    return [*sorted(set(names) - {ITEM_PRICE}), ITEM_PRICE]


def fields(attributes: Mapping[str, ItemAttribute]) -> list[Field]:
    """The working columns that a model of missing values may learn from, as it takes them."""
    return [
        Field(attribute_column(name), one.kind, one.separator)
        for name, one in attributes.items()
        if one.kind == "category" or one.kind == "number"
    ]


def strategies(missing: Mapping[str, Missing]) -> dict[str, Missing]:
    """What is done about missing attributes, by working column; `by` names a working column as well."""
    return {
        attribute_column(name): one if one.by is None else one.model_copy(update={"by": attribute_column(one.by)})
        for name, one in missing.items()
    }


def pack_attributes(
    rows: DataFrame, attributes: Mapping[str, ItemAttribute], *, for_network: bool = False
) -> DataFrame:
    """Replace the working columns by the maps `categories` (name -> values), `numbers` and `vectors` (name -> value).

    Several values of a category are split at its separator; a missing attribute has no entry. A text is one value, and
    `for_network` the values of its words.
    """
    categories = {
        name: _values(F.col(attribute_column(name)), attribute, for_network=for_network)
        for name, attribute in attributes.items()
        if attribute.kind in ("category", "text")
    }
    numbers, vectors = (
        {name: F.col(attribute_column(name)) for name, attribute in attributes.items() if attribute.kind == kind}
        for kind in ("number", "vector")
    )
    imputed = F.transform(c.IMPUTED, lambda name: F.regexp_replace(name, f"^{_PREFIX}", ""))
    return (
        rows.withColumn(c.CATEGORIES, _present(categories).cast("map<string,array<string>>"))
        .withColumn(c.NUMBERS, _present(numbers).cast("map<string,double>"))
        .withColumn(c.VECTORS, _present(vectors).cast("map<string,array<float>>"))
        .withColumn(c.IMPUTED, imputed)
        .drop(*[attribute_column(name) for name in attributes])
    )


def unpack_attributes(items: DataFrame, attributes: Mapping[str, ItemAttribute]) -> DataFrame:
    """Add one working column an attribute, null where the value was missing in the catalogue.

    Imputed cells are emptied again, so that whoever works as of a date can fill them by what was known then.
    """
    columns = {}
    for name, attribute in attributes.items():
        columns[attribute_column(name)] = F.when(~F.array_contains(c.IMPUTED, name), attribute_value(name, attribute))
    return items.withColumns(columns)


def attribute_value(name: str, attribute: ItemAttribute) -> Column:
    """The value in the map that the attribute belongs to; several values of a category as one text."""
    if attribute.kind == "number":
        return F.col(c.NUMBERS)[name]
    if attribute.kind == "vector":
        return F.col(c.VECTORS)[name]
    return F.array_join(F.col(c.CATEGORIES)[name], attribute.separator or "")


def _values(value: Column, attribute: ItemAttribute, *, for_network: bool) -> Column:
    if attribute.kind == "text" and for_network:
        return hashed_ngrams(value, attribute)
    if attribute.separator is None:
        return F.when(value.isNotNull(), F.array(value))
    parts = F.transform(F.split(value, re.escape(attribute.separator)), lambda part: F.trim(part))
    return F.array_distinct(F.filter(parts, lambda part: part != ""))


def _present(entries: Mapping[str, Column]) -> Column:
    if not entries:
        return F.create_map()
    # An array holds structs of one type, and the names of their fields belong to it.
    pairs = [F.struct(F.lit(name).alias("name"), value.alias("value")) for name, value in entries.items()]
    return F.map_filter(F.map_from_entries(F.array(*pairs)), lambda _, value: value.isNotNull())
