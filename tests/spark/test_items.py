"""The catalogue: which row of an item is kept, its attributes, and what fills those that are missing."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning.arrivals import everything
from recbatch.cleaning.items import extend_items_of_log, finish_items, fit_item_fills, parse_items
from recbatch.cleaning.rules import as_array
from recbatch.config.inputs import ItemsInput
from recbatch.tables import columns as c
from recbatch.tables.contracts import in_contract
from recbatch.tables.schemas import ITEMS
from tests.spark.support import write_csv

COLUMNS = ["id", "name", "from", "to", "brand", "tags", "size"]
ATTRIBUTES: dict[str, Any] = {
    "brand": {"source": "brand"},
    "tags": {"source": "tags", "separator": "|"},
    "size": {"source": "size", "kind": "number"},
}


def items_input(path: Path, **missing: Any) -> ItemsInput:
    attributes = {
        name: one | ({"missing": missing[name]} if name in missing else {}) for name, one in ATTRIBUTES.items()
    }
    return ItemsInput.model_validate(
        {
            "path": str(path),
            "item_id": "id",
            "title": "name",
            "valid_from": "from",
            "valid_to": "to",
            "time": {"format": "yyyy-MM-dd"},
            "attributes": attributes,
        }
    )


def item(**changes: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | {"id": "i1", "brand": "Acme", "size": "1"} | changes


def _parsed(spark: SparkSession, source: ItemsInput) -> list[dict[str, Any]]:
    rows, codes = parse_items(spark, source, everything(spark, source))
    rows = rows.withColumn(c.REASONS, as_array(F.col(c.REASONS), codes))
    return [row.asDict(recursive=True) for row in rows.collect()]


def _finished(spark: SparkSession, source: ItemsInput) -> dict[str, dict[str, Any]]:
    rows, _ = parse_items(spark, source, everything(spark, source))
    accepted = rows.where("outcome = 'accepted'")
    finished = finish_items(accepted, source, fit_item_fills(accepted, source), "run-1")
    return {row[c.ITEM_ID]: row.asDict(recursive=True) for row in in_contract(ITEMS, finished).collect()}


def test_rows_that_begin_at_different_times_are_versions_of_an_item(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        item(name="undated"),
        item(name="old", **{"from": "2023-01-01"}),
        item(name="newer", **{"from": "2024-01-01"}),
        item(name="new", **{"from": "2024-01-01"}),
        item(name="new", **{"from": "2024-01-01"}),
        item(name="wrong", **{"from": "2025-01-32"}),
        item(id="i2", name="two", to="2024-06-01"),
    ]
    for number, row in enumerate(rows):
        write_csv(tmp_path / f"{number}.csv", [row], COLUMNS)
    found = _parsed(spark, items_input(tmp_path))
    assert sorted((row[c.ITEM_ID], row[c.TITLE], row["outcome"]) for row in found) == [
        ("i1", "new", "accepted"),
        ("i1", "new", "exact_duplicate"),
        ("i1", "newer", "key_duplicate"),
        ("i1", "old", "accepted"),
        ("i1", "undated", "accepted"),
        ("i1", "wrong", "rejected"),
        ("i2", "two", "accepted"),
    ]
    (two,) = (row for row in found if row[c.ITEM_ID] == "i2")
    assert two[c.VALID_FROM] is None
    assert two[c.VALID_TO] == dt.datetime(2024, 6, 1)


def test_faults_of_items(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        item(id="", name="no id"),
        item(id="i2", name="text in a number", size="big"),
        item(id="i3", name="wrong end", to="someday"),
        item(id="i4", name="no brand", brand=""),
        item(id="i5", name="only separators", tags=" | "),
        item(id="i6", name="good", tags="a"),
    ]
    write_csv(tmp_path / "items.csv", rows, COLUMNS)
    found = _parsed(spark, items_input(tmp_path, brand="drop", tags="drop"))
    assert {row[c.TITLE]: row["reasons"] for row in found} == {
        "no id": ["missing_item_id", "missing_tags"],
        "text in a number": ["missing_tags", "invalid_size"],
        "wrong end": ["invalid_valid_to", "missing_tags"],
        "no brand": ["missing_brand", "missing_tags"],
        "only separators": ["missing_tags"],
        "good": [],
    }


def test_attributes_become_maps(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        item(id="i1", tags=" b | a||b "),
        item(id="i2", brand="", tags="", size=""),
        item(id="i3", brand="A|B", tags="|"),
    ]
    write_csv(tmp_path / "items.csv", rows, COLUMNS)
    found = _finished(spark, items_input(tmp_path))
    assert found["i1"][c.CATEGORIES] == {"brand": ["Acme"], "tags": ["b", "a"]}
    assert found["i1"][c.NUMBERS] == {"size": 1.0}
    assert (found["i2"][c.CATEGORIES], found["i2"][c.NUMBERS], found["i2"][c.IMPUTED]) == ({}, {}, [])
    assert found["i3"][c.CATEGORIES] == {"brand": ["A|B"]}
    assert {row[c.RUN_ID] for row in found.values()} == {"run-1"}


@pytest.mark.parametrize(
    ("strategy", "brand", "size"),
    [
        ({"brand": "mode", "size": "mean"}, "Acme", 4.0),
        ({"brand": {"strategy": "constant", "value": "none"}, "size": "median"}, "none", 2.5),
        ({"size": "mode"}, None, 2.0),
        ({"size": {"strategy": "constant", "value": -1}}, None, -1.0),
    ],
    ids=str,
)
def test_missing_attributes_are_filled_and_flagged(
    spark: SparkSession, tmp_path: Path, strategy: dict[str, Any], brand: str | None, size: float
) -> None:
    # Brands and sizes are equally frequent: then the smallest is the mode.
    sizes, brands = ["2", "3", "10", "1", "", "2", "6"], ["Zeta", "Zeta", "Acme", "Acme", "", "B", "C"]
    sizes[3] = "1" if strategy["size"] != "mode" else "10"
    rows = [item(id=f"i{n}", size=s, brand=b) for n, (s, b) in enumerate(zip(sizes, brands, strict=True))]
    write_csv(tmp_path / "items.csv", rows, COLUMNS)
    found = _finished(spark, items_input(tmp_path, **strategy))
    assert found["i4"][c.CATEGORIES].get("brand", [None]) == [brand]
    assert found["i4"][c.NUMBERS] == {"size": size}
    assert sorted(found["i4"][c.IMPUTED]) == sorted(strategy)
    assert all(row[c.IMPUTED] == [] for name, row in found.items() if name != "i4")


def test_a_text_is_kept_whole(spark: SparkSession, tmp_path: Path) -> None:
    long = "Fresh  MILK, 3.8% | 1l"
    rows = [item(id="i1", name=f" {long} "), item(id="i2", name=" -- !"), item(id="i3"), item(id="i4", name="７")]
    write_csv(tmp_path / "items.csv", rows, COLUMNS)
    text = {"source": "name", "kind": "text"}

    def source(missing: Any) -> ItemsInput:
        attributes = {"label": text | {"missing": missing}}
        return ItemsInput.model_validate({"path": str(tmp_path), "item_id": "id", "attributes": attributes})

    found = _finished(spark, source("keep"))
    kept = {"i1": {"label": [long]}, "i2": {}, "i3": {}, "i4": {"label": ["７"]}}
    assert {name: row[c.CATEGORIES] for name, row in found.items()} == kept
    found = _finished(spark, source({"strategy": "constant", "value": "no name"}))
    assert {name: row[c.IMPUTED] for name, row in found.items()} == {
        "i1": [],
        "i2": ["label"],
        "i3": ["label"],
        "i4": [],
    }
    assert found["i2"][c.CATEGORIES] == {"label": ["no name"]}
    reasons = {row[c.ITEM_ID]: row[c.REASONS] for row in _parsed(spark, source("drop"))}
    assert reasons == {"i1": [], "i2": ["missing_label"], "i3": ["missing_label"], "i4": []}


VECTORS = {
    "comma": ("[0.5, -1e-3,2]", [0.5, -0.001, 2.0]),
    "blank": ("  (\t0.5\t1  2 ) ", [0.5, 1.0, 2.0]),
    "semicolon": ("0.5 ; 1;2.0", [0.5, 1.0, 2.0]),
    "curly": ("{1,2,3}", [1.0, 2.0, 3.0]),
    "missing": ("", None),
    "empty": ("[ ]", None),
    "short": ("[1, 2]", "invalid_look"),
    "long": ("1 2 3 4", "invalid_look"),
    "text": ("[1, two, 3]", "invalid_look"),
    "hole": ("1,,3", "invalid_look"),
    "end": ("1,2,3,", "invalid_look"),
    "open": ("[1,2,3", "invalid_look"),
    "mixed": ("[1,2,3)", "invalid_look"),
    "nested": ("[[1,2,3]]", "invalid_look"),
    "nan": ("1 NaN 3", "invalid_look"),
    "infinite": ("1 -Infinity 3", "invalid_look"),
    "large": ("1 1e39 3", "invalid_look"),
    "literal": ("1f 2d 3", "invalid_look"),
}


def _vectors_input(path: Path, **options: Any) -> ItemsInput:
    attributes = {"look": {"source": "look", "kind": "vector", "size": 3} | options.pop("attribute", {})}
    return ItemsInput.model_validate({"path": str(path), "item_id": "id", "attributes": attributes} | options)


def _check_vectors(spark: SparkSession, source: ItemsInput, expected: dict[str, tuple[Any, Any]]) -> None:
    reasons = {row[c.ITEM_ID]: row[c.REASONS] for row in _parsed(spark, source)}
    wrong = {name: [found] for name, (_, found) in expected.items() if isinstance(found, str)}
    assert reasons == {name: [] for name in expected} | wrong
    vectors = {row[c.ITEM_ID]: row[c.VECTORS] for row in _finished(spark, source).values()}
    assert vectors.keys() == expected.keys() - wrong.keys()
    for name, found in vectors.items():
        wanted = expected[name][1]
        assert found == ({} if wanted is None else {"look": pytest.approx(wanted, rel=1e-7)}), name


def test_vectors_written_as_texts(spark: SparkSession, tmp_path: Path) -> None:
    rows = [{"id": name, "look": text} for name, (text, _) in VECTORS.items()]
    write_csv(tmp_path / "items.csv", rows, ["id", "look"])
    _check_vectors(spark, _vectors_input(tmp_path), VECTORS)
    found = _parsed(spark, _vectors_input(tmp_path, attribute={"missing": "drop"}))
    dropped = {row[c.ITEM_ID] for row in found if row[c.REASONS] == ["missing_look"]}
    assert dropped == {"missing", "empty"}


def test_vectors_of_json(spark: SparkSession, tmp_path: Path) -> None:
    expected: dict[str, tuple[Any, Any]] = {
        "numbers": ([0.5, 1, -2e-3], [0.5, 1.0, -0.002]),
        "texts": (["0.5", " 1 ", "2"], [0.5, 1.0, 2.0]),
        "null": (None, None),
        "empty": ([], None),
        "hole": ([1, None, 3], "invalid_look"),
        "word": ([1, "x", 3], "invalid_look"),
        "short": ([1, 2], "invalid_look"),
    }
    lines = [json.dumps({"id": name, "look": look}) for name, (look, _) in expected.items()]
    (tmp_path / "items.json").write_text("\n".join(lines), encoding="utf-8")
    _check_vectors(spark, _vectors_input(tmp_path, format="json"), expected)
    text = '{"id": "text", "look": "1 2 3"}'
    (tmp_path / "items.json").write_text("\n".join([*lines, text]), encoding="utf-8")
    mixed = expected | {"text": ("1 2 3", [1.0, 2.0, 3.0])}
    del mixed["texts"]  # a column of both is raw JSON, where the texts of an array keep their quotes
    _check_vectors(spark, _vectors_input(tmp_path, format="json"), mixed | {"texts": (None, "invalid_look")})


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int32(), pa.decimal128(10, 3)], ids=str)
def test_vectors_of_parquet(spark: SparkSession, tmp_path: Path, kind: pa.DataType) -> None:
    expected: dict[str, tuple[Any, Any]] = {
        "numbers": ([1, -2, 3], [1.0, -2.0, 3.0]),
        "null": (None, None),
        "empty": ([], None),
        "hole": ([1, None, 3], "invalid_look"),
        "long": ([1, 2, 3, 4], "invalid_look"),
    }
    if pa.types.is_floating(kind):
        expected |= {
            "fractions": ([0.1, 1 / 3, 1e-30], [np.float32(0.1), np.float32(1 / 3), np.float32(1e-30)]),
            "nan": ([1, math.nan, 3], "invalid_look"),
            "nan and hole": ([None, math.nan, 3], "invalid_look"),
            "infinite": ([1, -math.inf, 3], "invalid_look"),
        }
    if pa.types.is_float64(kind):
        expected["large"] = ([1.0, 1e39, 2.0], "invalid_look")
    looks = pa.array(
        [
            None if look is None else [None if one is None else _as(kind, one) for one in look]
            for look, _ in expected.values()
        ],
        pa.list_(kind),
    )
    pq.write_table(pa.table({"id": list(expected), "look": looks}), tmp_path / "items.parquet")
    _check_vectors(spark, _vectors_input(tmp_path, format="parquet"), expected)


def _as(kind: pa.DataType, number: float) -> Any:
    return Decimal(number) if pa.types.is_decimal(kind) else int(number) if pa.types.is_integer(kind) else float(number)


def test_a_catalogue_made_of_the_log_knows_no_item_before_its_first_event(spark: SparkSession) -> None:
    events = [("i1", dt.datetime(2024, 1, 2)), ("i1", dt.datetime(2024, 1, 1)), ("i2", dt.datetime(2024, 3, 1))]
    frame = spark.createDataFrame(events, "item_id string, event_time timestamp")
    rows = in_contract(ITEMS, extend_items_of_log(None, frame, "run-1")).collect()
    assert {row[c.ITEM_ID]: row[c.VALID_FROM] for row in rows} == {
        "i1": dt.datetime(2024, 1, 1),
        "i2": dt.datetime(2024, 3, 1),
    }
    assert all(row[c.VALID_TO] is None and row[c.CATEGORIES] == row[c.VECTORS] == {} for row in rows)


def test_an_attribute_may_not_take_the_name_of_the_price_in_the_log(tmp_path: Path) -> None:
    attributes = {"item_price": {"source": "price", "kind": "number"}}
    with pytest.raises(ValidationError, match="item_price"):
        ItemsInput.model_validate({"path": str(tmp_path), "item_id": "id", "attributes": attributes})
