"""Items as numbers: category codes and normalised values, fitted on what was known at a date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute
from recbatch.config.sections import FeaturesSection
from recbatch.errors import InputContractError
from recbatch.tables import columns as c
from recbatch.transforms import imputation, normalization
from recbatch.transforms.attributes import (
    ITEM_PRICE,
    attribute_column,
    category_fields,
    fields,
    number_fields,
    pack_attributes,
    strategies,
    text_fields,
    unpack_attributes,
)
from recbatch.transforms.parameters import Parameters
from recbatch.transforms.texts import hashed_ngrams

MISSING_CODE = 0
FIRST_CODE = 1
# Offsets in a list of Arrow are 32 bits wide.
_MOST_VALUES = 2**31 - 1


def category_values(items: pa.Table, fields: Sequence[str]) -> pa.Table:
    """The (field, value) pairs of the category attributes `fields` in the catalogue, given its column `categories`."""
    _, names, values = _entries(items[c.CATEGORIES])
    pairs = pa.table({c.FIELD: names.take(pc.list_parent_indices(values)), c.VALUE: values.flatten()})
    return pairs.filter(pc.is_in(pairs[c.FIELD], value_set=pa.array(fields, pa.string())))


def coded_values(items: DataFrame, attributes: Mapping[str, ItemAttribute]) -> DataFrame:
    """The (field, value) pairs of categories and of texts, each once, given the catalogue's column `categories`."""
    values = F.when(F.col(c.FIELD).isin(category_fields(attributes)), F.col(c.VALUE))
    for name in text_fields(attributes):
        whole = F.array_join(F.col(c.VALUE), "")
        values = values.when(F.col(c.FIELD) == name, hashed_ngrams(whole, attributes[name]))
    entries = items.select(F.explode(c.CATEGORIES).alias(c.FIELD, c.VALUE))
    return entries.select(c.FIELD, F.explode(values).alias(c.VALUE)).distinct()


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


def catalogue_at(history: DataFrame, attributes: Mapping[str, ItemAttribute], as_of: dt.datetime) -> DataFrame:
    """The catalogue as it was known at `as_of`, a column an attribute; items not known or not valid yet have no row.

    history: as the table `item_history`.
    """
    return unpack_attributes(versions_at(history, as_of), attributes)


def described_items(
    known: DataFrame, prices: DataFrame, attributes: Mapping[str, ItemAttribute], section: FeaturesSection
) -> DataFrame:
    """Rows of `catalogue_at` with attributes as maps, and missing ones filled by what was known then.

    Texts are cut into the values that stand for their words.

    prices: (item_id, price), the mean price of an item in the log, which `numbers` gains as `item_price`.
    """
    price = prices.select(c.ITEM_ID, F.col(c.PRICE).alias(attribute_column(ITEM_PRICE)))
    with_price = known.join(price, on=c.ITEM_ID, how="left").localCheckpoint(eager=True)
    missing = {name: attribute.missing for name, attribute in attributes.items()} | {ITEM_PRICE: section.item_price}
    fills = imputation.fit(with_price, strategies(missing), fields(attributes))
    filled = imputation.apply(with_price, fills)
    return pack_attributes(filled, {**attributes, ITEM_PRICE: _PRICE_ATTRIBUTE}, for_network=True)


_PRICE_ATTRIBUTE = ItemAttribute.model_validate({"source": ITEM_PRICE, "kind": "number"})


def fit_numbers(
    described: DataFrame, attributes: Mapping[str, ItemAttribute], section: FeaturesSection
) -> dict[str, Parameters]:
    """Normalisation parameters of every numeric attribute, over the items of `described_items`."""
    names = number_fields(attributes)
    columns = described.select(*[F.col(c.NUMBERS)[name].alias(name) for name in names])
    return normalization.fit(columns, dict.fromkeys(names, section.numbers))


def item_features(
    described: pa.Table,
    index: pa.Table,
    codes: pa.Table,
    fields: list[str],
    numbers: list[str],
    vectors: Mapping[str, int],
    as_of: dt.datetime,
) -> pa.Table:
    """One row an entry of `item_index`, aligned with it; an item that `described` lacks has nothing but missing values.

    described: rows of `described_items`. codes: `category_index`. fields, numbers: the names of the attributes with
    codes and of the number attributes, in the order of the columns' entries; so vectors, with the size of each.

    Raises:
        InputContractError: all vectors together have more numbers than a column of Arrow can hold.
    """
    index = index.sort_by(c.ITEM_IDX)
    row = pc.index_in(index[c.ITEM_ID], value_set=_whole(described[c.ITEM_ID])).combine_chunks()
    row = np.asarray(pc.fill_null(row, len(described)), np.int64)  # one behind the last: missing
    item = np.full(len(described) + 1, -1)
    item[row] = np.arange(len(index))
    return pa.table(
        {
            c.ITEM_IDX: index[c.ITEM_IDX],
            c.ITEM_ID: index[c.ITEM_ID],
            c.CATEGORIES: _codes(described[c.CATEGORIES], item, len(index), codes, fields),
            c.NUMBERS: _numbers(described[c.NUMBERS], row, numbers),
            c.VECTORS: _vectors(described[c.VECTORS], row, vectors),
            c.ELIGIBLE: pa.array(np.append(_valid_rows(described, as_of), [False])[row]),
        }
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _valid_rows(described: pa.Table, as_of: dt.datetime) -> NDArray[np.bool_]:
    """As `valid_at`."""
    moment = pa.scalar(as_of, described.schema.field(c.VALID_FROM).type)
    started = pc.fill_null(pc.less_equal(described[c.VALID_FROM], moment), True)
    ended = pc.fill_null(pc.less_equal(described[c.VALID_TO], moment), False)
    valid: NDArray[np.bool_] = pc.and_not(started, ended).to_numpy().astype(np.bool_)
    return valid


def _entries(maps: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array, pa.Array]:
    """Row, key and value of every entry of a column of maps."""
    whole = _whole(maps)
    keys, values = whole.keys, whole.items
    offsets = np.asarray(whole.offsets, np.int64)
    rows = np.repeat(np.arange(len(whole)), offsets[1:] - offsets[:-1])
    return rows, keys[offsets[0] : offsets[-1]], values[offsets[0] : offsets[-1]]


def _numbers(maps: pa.ChunkedArray, row: NDArray[np.int64], names: list[str]) -> pa.Array:
    """A list of float32 an item, NaN where missing; row: (I,), len(maps) for none."""
    rows, keys, values = _entries(maps)
    made = np.full((len(row), len(names)), np.nan, np.float32)
    for at, name in enumerate(names):
        mine = pc.equal(keys, name).to_numpy(zero_copy_only=False)
        column = np.full(len(maps) + 1, np.nan)
        column[rows[mine]] = values.to_numpy(zero_copy_only=False)[mine]
        made[:, at] = column[row]
    offsets = np.arange(len(row) + 1, dtype=np.int32) * len(names)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(made.ravel()))


def _vectors(maps: pa.ChunkedArray, row: NDArray[np.int64], sizes: Mapping[str, int]) -> pa.Array:
    """A list of float32 an item: its vectors one after the other, each of norm 1; row: as for `_numbers`.

    Missing ones, and those that were delivered when they had another size, are zeros.
    """
    width = sum(sizes.values())
    if len(row) * width > _MOST_VALUES:
        raise InputContractError(
            f"vectors of {width:,} numbers for {len(row):,} items are more than the {_MOST_VALUES:,} that fit",
            remedy="give shorter vectors, for example their main components",
        )
    rows, keys, lists = _entries(maps)
    made = np.zeros((len(row), width), np.float32)
    at = 0
    for name, size in sizes.items():
        mine = pc.and_(pc.equal(keys, name), pc.equal(pc.list_value_length(lists), size))
        values = lists.filter(mine).flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        # In float64, where no square overflows, but never all of them at a time.
        norm = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        norm[norm == 0] = 1.0
        unit = np.divide(values, norm[:, None], out=np.empty_like(values), casting="same_kind")
        place = np.full(len(maps) + 1, -1)
        place[rows[mine.to_numpy(zero_copy_only=False)]] = np.arange(len(values))
        found = place[row]
        there = found >= 0
        made[there, at : at + size] = unit[found[there]]
        at += size
    offsets = np.arange(len(row) + 1, dtype=np.int32) * width
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(made.ravel()))


def _codes(
    maps: pa.ChunkedArray, item: NDArray[np.int64], n_items: int, codes: pa.Table, fields: list[str]
) -> pa.Array:
    """For every item a list of the codes of each field, ascending, or of the one for a missing value.

    item: by row of `maps`, the item's place, -1 for none.
    """
    rows, keys, lists = _entries(maps)
    entry = pc.list_parent_indices(lists).to_numpy()
    wanted = pc.binary_join_element_wise(keys.take(pa.array(entry)), lists.flatten(), "\0")
    known = pc.binary_join_element_wise(_whole(codes[c.FIELD]), _whole(codes[c.VALUE]), "\0")
    code = np.append(codes[c.CODE].to_numpy(), [MISSING_CODE])[pc.index_in(wanted, known).fill_null(-1).to_numpy()]
    field = pc.index_in(keys, pa.array(fields, pa.string())).fill_null(-1).to_numpy()[entry]
    of = item[rows[entry]]
    there = (code != MISSING_CODE) & (field >= 0) & (of >= 0)
    place, code = (of * len(fields) + field)[there], code[there]
    order = np.lexsort([code, place])
    counts = np.bincount(place, minlength=n_items * len(fields))
    offsets = np.concatenate([[0], np.maximum(counts, 1).cumsum()])
    starts = np.concatenate([[0], counts.cumsum()])
    values = np.full(offsets[-1], MISSING_CODE, np.int32)
    values[offsets[place[order]] + np.arange(len(order)) - starts[place[order]]] = code[order]
    inner = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
    outer = np.arange(n_items + 1, dtype=np.int32) * len(fields)
    return pa.ListArray.from_arrays(pa.array(outer), inner)
