"""Indices that only grow, and the features of items as of a date."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from recbatch.config.inputs import ItemAttribute
from recbatch.config.sections import FeaturesSection
from recbatch.errors import InputContractError
from recbatch.features.index import new_entries
from recbatch.features.item_features import (
    catalogue_at,
    category_values,
    coded_values,
    described_items,
    fit_numbers,
    item_features,
)
from recbatch.tables import columns as c
from recbatch.tables.schemas import ITEM_FEATURES, ITEM_HISTORY
from recbatch.transforms.attributes import category_fields, coded_fields, number_fields, vector_sizes

JANUARY, MARCH, JUNE = (dt.datetime(2024, month, 1, tzinfo=dt.UTC) for month in (1, 3, 6))
ATTRIBUTES = {
    "tags": ItemAttribute.model_validate({"source": "tags", "separator": "|"}),
    "brand": ItemAttribute.model_validate({"source": "brand", "missing": "mode"}),
    "size": ItemAttribute.model_validate({"source": "size", "kind": "number", "missing": "mean"}),
}


NO_CODES = pa.table(
    {c.FIELD: pa.array([], pa.string()), c.VALUE: pa.array([], pa.string()), c.CODE: pa.array([], pa.int32())}
)


def _index(numbers: dict[str, int]) -> pa.Table:
    return pa.table({c.ITEM_ID: pa.array(numbers, pa.string()), c.ITEM_IDX: pa.array(numbers.values(), pa.int32())})


def _indexed(ids: list[str], known: dict[str, int]) -> dict[str, int]:
    found = new_entries(pa.table({c.ITEM_ID: ids}), _index(known), [c.ITEM_ID], c.ITEM_IDX, first=0)
    return dict(zip(found[c.ITEM_ID].to_pylist(), found[c.ITEM_IDX].to_pylist(), strict=True))


def test_an_index_is_dense_and_only_grows() -> None:
    ids = [f"item {n:03}" for n in range(40)]
    first = _indexed(ids[5:25], {})
    second = _indexed(ids[::-1] + ids, first)
    assert sorted(first) == ids[5:25]
    assert sorted(first.values()) == list(range(20))
    assert sorted(second) == ids[:5] + ids[25:]
    assert sorted(second.values()) == list(range(20, 40))
    assert _indexed(ids[:10], first | second) == {}
    # The number of an item says nothing about the place of its id, and does not depend on the order of the input.
    assert [first[one] for one in ids[5:25]] != sorted(first.values())
    assert _indexed(ids[5:25][::-1], {}) == first
    # Twenty ids in random order have a rank correlation with a deviation of 0.23.
    assert abs(np.corrcoef(range(20), [first[one] for one in ids[5:25]])[0, 1]) < 0.7


def test_an_index_of_two_columns_over_an_empty_one_begins_at_its_first_number() -> None:
    values = pa.table({c.FIELD: ["f", "f", "g", "f"], c.VALUE: ["a", "b", "a", "a"]})
    found = new_entries(values, NO_CODES, [c.FIELD, c.VALUE], c.CODE, first=1)
    assert sorted(found[c.CODE].to_pylist()) == [1, 2, 3]
    assert {(row[c.FIELD], row[c.VALUE]) for row in found.to_pylist()} == {("f", "a"), ("f", "b"), ("g", "a")}


def _item(item_id: str, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(ITEM_HISTORY.schema.names) | {
        c.ITEM_ID: item_id,
        c.CATEGORIES: {},
        c.NUMBERS: {},
        c.VECTORS: {},
        c.IMPUTED: [],
    }
    return row | changes


CATALOGUE = [
    _item("a", categories={"brand": ["Acme"], "tags": ["x", "y"]}, numbers={"size": 2.0}),
    _item("b", categories={"brand": ["Acme"], "tags": ["y"]}, numbers={"size": 4.0}, valid_to=MARCH),
    _item("c", categories={"brand": ["Zeta"]}, numbers={"size": 6.0}, valid_from=MARCH),
    # Filled in the catalogue by what all of it says.
    _item("d", categories={"brand": ["Omega"]}, numbers={"size": 99.0}, imputed=["brand", "size"]),
    _item("e", categories={"brand": ["Omega"], "tags": ["z"]}, numbers={"size": 500.0}, valid_from=JUNE),
    _item("f", categories={"brand": ["Omega"]}, numbers={"size": 400.0}, valid_from=JUNE),
]
INDEX = {"a": 3, "b": 0, "c": 2, "d": 1, "e": 5, "f": 4, "gone": 6}
PRICES = [("a", 2.0), ("b", 6.0), ("gone", 1000.0)]


@pytest.fixture(scope="module")
def items(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(CATALOGUE, ITEM_HISTORY.schema).cache()


@pytest.fixture(scope="module")
def codes(items: DataFrame) -> pa.Table:
    values = category_values(items.select(c.CATEGORIES).toArrow(), ["brand", "tags"])
    return new_entries(values, NO_CODES, [c.FIELD, c.VALUE], c.CODE, first=1)


def _features(spark: SparkSession, items: DataFrame, codes: pa.Table, as_of: dt.datetime) -> dict[str, Any]:
    section = FeaturesSection()
    prices = spark.createDataFrame(PRICES, "item_id string, price double")
    described = described_items(catalogue_at(items, ATTRIBUTES, as_of), prices, ATTRIBUTES, section).toArrow()
    fields, numbers = category_fields(ATTRIBUTES), number_fields(ATTRIBUTES)
    rows = item_features(described, _index(INDEX), codes, fields, numbers, {}, as_of)
    assert rows.schema.names == ITEM_FEATURES.schema.names
    found = rows.to_pylist()
    assert [row[c.ITEM_IDX] for row in found] == list(range(len(INDEX)))
    assert {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in found} == INDEX
    assert len(found) == len(INDEX)
    return {row[c.ITEM_ID]: row for row in found}


def test_codes_begin_at_one_and_every_value_has_its_own(codes: pa.Table) -> None:
    found = {(row[c.FIELD], row[c.VALUE]): row[c.CODE] for row in codes.to_pylist()}
    assert set(found) == {("brand", brand) for brand in ("Acme", "Zeta", "Omega")} | {("tags", tag) for tag in "xyz"}
    assert sorted(found.values()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("as_of", "eligible", "known", "mean_size", "price"),
    [
        # The moment an item becomes valid belongs to its time, the moment it ends does not.
        (JANUARY, "abd", "abd", 3.0, 4.0),
        (MARCH, "acd", "abcd", 4.0, 4.0),
        (JUNE, "acdef", "abcdef", 182.4, 4.0),
    ],
)
def test_features_are_those_known_at_a_date(
    spark: SparkSession,
    items: DataFrame,
    codes: pa.Table,
    as_of: dt.datetime,
    eligible: str,
    known: str,
    mean_size: float,
    price: float,
) -> None:
    assert (category_fields(ATTRIBUTES), number_fields(ATTRIBUTES)) == (["brand", "tags"], ["size", "item_price"])
    found = _features(spark, items, codes, as_of)
    assert "".join(sorted(name for name, row in found.items() if row[c.ELIGIBLE])) == eligible

    code = {(row[c.FIELD], row[c.VALUE]): row[c.CODE] for row in codes.to_pylist()}
    # Two of three brands known in January are Acme; in June Omega would be as frequent, and Acme comes first.
    brands = {"a": "Acme", "b": "Acme", "c": "Zeta", "d": "Acme", "e": "Omega", "f": "Omega"}
    tags = {"a": "xy", "b": "y", "e": "z"}
    sizes = {"a": 2.0, "b": 4.0, "c": 6.0, "d": mean_size, "e": 500.0, "f": 400.0}
    prices = {"a": 2.0, "b": 6.0} | dict.fromkeys("cdef", price)
    for name, row in found.items():
        if name not in known:
            assert (row[c.CATEGORIES], str(row[c.NUMBERS])) == ([[0], [0]], "[nan, nan]"), name
            continue
        expected = sorted(code["tags", tag] for tag in tags.get(name, "")) or [0]
        assert row[c.CATEGORIES] == [[code["brand", brands[name]]], expected], name
        np.testing.assert_allclose(row[c.NUMBERS], [sizes[name], prices[name]], rtol=1e-6)


def test_numbers_are_fitted_to_the_items_known_at_a_date(spark: SparkSession, items: DataFrame) -> None:
    prices = spark.createDataFrame(PRICES, "item_id string, price double")
    section = FeaturesSection()
    described = described_items(catalogue_at(items, ATTRIBUTES, MARCH), prices, ATTRIBUTES, section)
    found = fit_numbers(described, ATTRIBUTES, section)
    numbers = np.array([(2.0, 2.0), (4.0, 6.0), (6.0, 4.0), (4.0, 4.0)])
    fitted = [(found[name].center, found[name].scale) for name in ("size", "item_price")]
    np.testing.assert_allclose(fitted, np.transpose([numbers.mean(axis=0), numbers.std(axis=0)]))


def test_a_catalogue_without_attributes(spark: SparkSession, items: DataFrame) -> None:
    prices = spark.createDataFrame(PRICES, "item_id string, price double")
    described = described_items(catalogue_at(items, {}, MARCH), prices, {}, FeaturesSection()).toArrow()
    rows = item_features(described, _index({"a": 0, "b": 1}), NO_CODES, [], number_fields({}), {}, MARCH)
    found = {row[c.ITEM_ID]: row for row in rows.to_pylist()}
    assert [found[name][c.CATEGORIES] for name in "ab"] == [[], []]
    assert all((len(row[c.NUMBERS]), row[c.VECTORS]) == (1, []) for row in found.values())


def test_texts_have_the_codes_of_their_runs_of_words(spark: SparkSession) -> None:
    attributes = {
        "name": ItemAttribute.model_validate({"source": "n", "kind": "text", "missing": _NAMELESS}),
        "brand": ATTRIBUTES["brand"],
    }
    rows = [
        _item("a", categories={"brand": ["Acme"], "name": ["Red wine"]}),
        _item("b", categories={"brand": ["Acme"], "name": ["WINE, red wine!"], "unmapped": ["x"]}),
        _item("c", categories={"name": ["nameless"]}, imputed=["name"]),
        _item("d", categories={"brand": ["Zeta"], "name": ["Red"]}),
    ]
    items = spark.createDataFrame(rows, ITEM_HISTORY.schema)
    codes = new_entries(coded_values(items, attributes).toArrow(), NO_CODES, [c.FIELD, c.VALUE], c.CODE, first=1)
    prices = spark.createDataFrame([], "item_id string, price double")
    known = catalogue_at(items, attributes, MARCH)
    described = described_items(known, prices, attributes, FeaturesSection()).toArrow()
    assert coded_fields(attributes) == ["brand", "name"]
    found = item_features(
        described, _index({"a": 0, "b": 1, "c": 2, "d": 3, "new": 4}), codes, ["brand", "name"], [], {}, MARCH
    )
    brands, names = zip(*(row[c.CATEGORIES] for row in found.to_pylist()), strict=True)

    runs = {"a": {"red", "wine", "red wine"}, "b": {"red", "wine", "red wine", "wine red"}, "d": {"red"}}
    assert [len(one) for one in names] == [3, 4, 1, 1, 1]
    for one, other in (("a", "b"), ("a", "d"), ("b", "d")):
        shared = set(names["abcd".index(one)]) & set(names["abcd".index(other)])
        assert len(shared) == len(runs[one] & runs[other]), (one, other)
    assert set(names[2]).isdisjoint([*names[0], *names[1], *names[3]])
    assert (names[4], brands[4]) == ([0], [0])
    assert brands[0] == brands[1] == brands[2] != brands[3]  # the mode of what is known
    # No more than they need: neither whole texts nor what is not mapped.
    assert sorted(codes[c.CODE].to_pylist()) == [1, 2, 3, 4, 5, 6, 7]
    assert set(codes[c.FIELD].to_pylist()) == {"brand", "name"}


_NAMELESS = {"strategy": "constant", "value": "nameless"}


def test_vectors_lie_one_after_the_other_with_a_norm_of_one(spark: SparkSession) -> None:
    kinds = {"sound": 3, "look": 2}
    attributes = {
        name: ItemAttribute.model_validate({"source": name, "kind": "vector", "size": size})
        for name, size in kinds.items()
    }
    rows = [
        _item("a", vectors={"sound": [2.0, -1.0, 2.0], "look": [3.0, 4.0]}),
        _item("b", vectors={"sound": [0.0, 0.0, 0.0], "unmapped": [1.0]}),
        # Too large and too small to be squared in float32; and of an older size.
        _item("c", vectors={"sound": [3e38, 0.0, 3e38], "look": [1e-30, 0.0]}),
        _item("d", vectors={"look": [1.0, 2.0, 3.0]}, numbers={"size": 1.0}),
    ]
    items = spark.createDataFrame(rows, ITEM_HISTORY.schema)
    prices = spark.createDataFrame([], "item_id string, price double")
    known = catalogue_at(items, attributes, MARCH)
    described = described_items(known, prices, attributes, FeaturesSection()).toArrow()
    sizes = vector_sizes(attributes)
    assert list(sizes.items()) == [("look", 2), ("sound", 3)]
    index = _index({"d": 0, "c": 1, "a": 2, "new": 3, "b": 4})
    found = item_features(described, index, NO_CODES, [], number_fields({}), sizes, MARCH)
    root = 0.5**0.5
    np.testing.assert_allclose(
        found[c.VECTORS].to_pylist(),
        [
            [0.0] * 5,
            [1.0, 0.0, root, 0.0, root],
            [0.6, 0.8, 2 / 3, -1 / 3, 2 / 3],
            [0.0] * 5,
            [0.0] * 5,
        ],
        rtol=1e-6,
    )
    # Also where nothing at all is known yet.
    nobody = item_features(described[:0], index, NO_CODES, [], number_fields({}), sizes, MARCH)
    assert nobody[c.VECTORS].to_pylist() == [[0.0] * 5] * 5


def test_more_numbers_than_a_column_holds_are_refused(spark: SparkSession, items: DataFrame) -> None:
    described = described_items(
        catalogue_at(items, {}, MARCH),
        spark.createDataFrame(PRICES, "item_id string, price double"),
        {},
        FeaturesSection(),
    ).toArrow()
    with pytest.raises(InputContractError, match="4,294,967,296 numbers for 1 items are more than"):
        item_features(described, _index({"a": 0}), NO_CODES, [], [], {"look": 2**32}, MARCH)
