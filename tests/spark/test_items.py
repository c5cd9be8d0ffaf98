"""The catalogue: which row of an item is kept, its attributes, and what fills those that are missing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

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


def test_a_catalogue_made_of_the_log_knows_no_item_before_its_first_event(spark: SparkSession) -> None:
    events = [("i1", dt.datetime(2024, 1, 2)), ("i1", dt.datetime(2024, 1, 1)), ("i2", dt.datetime(2024, 3, 1))]
    frame = spark.createDataFrame(events, "item_id string, event_time timestamp")
    rows = in_contract(ITEMS, extend_items_of_log(None, frame, "run-1")).collect()
    assert {row[c.ITEM_ID]: row[c.VALID_FROM] for row in rows} == {
        "i1": dt.datetime(2024, 1, 1),
        "i2": dt.datetime(2024, 3, 1),
    }
    assert all(row[c.VALID_TO] is None and row[c.CATEGORIES] == {} for row in rows)


def test_an_attribute_may_not_take_the_name_of_the_price_in_the_log(tmp_path: Path) -> None:
    attributes = {"item_price": {"source": "price", "kind": "number"}}
    with pytest.raises(ValidationError, match="item_price"):
        ItemsInput.model_validate({"path": str(tmp_path), "item_id": "id", "attributes": attributes})
