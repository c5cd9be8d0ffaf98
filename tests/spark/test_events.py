"""What becomes of every kind of raw event: its values, its reasons, its raw record."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recbatch.cleaning.arrivals import everything
from recbatch.cleaning.raw import read_raw
from recbatch.config.cleaning import CleaningSection, Rule
from recbatch.config.inputs import RawColumn
from recbatch.errors import UsageError
from recbatch.tables import columns as c
from tests.spark.support import csv_text, event, events_input, judged, write_csv

UTC = dt.UTC

# Every query is another fault, so that a row is found again by it.
FAULTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "text in a quantity": ({"qty": "two"}, ["invalid_quantity"]),
    "text in a price": ({"price": "1,50 €"}, ["invalid_price"]),
    "text in a weight": ({"weight": "heavy"}, ["invalid_weight"]),
    "a number with a type suffix": ({"price": "5d"}, ["invalid_price"]),
    "not a number": ({"price": "NaN"}, ["invalid_price"]),
    "infinity": ({"price": "inf"}, ["invalid_price"]),
    "minus infinity": ({"qty": "-Infinity"}, ["invalid_quantity"]),
    "too large for a double": ({"price": "1e999"}, ["invalid_price"]),
    "a date that is none": ({"time": "2024-02-30 10:00:00"}, ["invalid_event_time"]),
    "a date in another format": ({"time": "01.03.2024"}, ["invalid_event_time"]),
    "no time": ({"time": ""}, ["missing_event_time"]),
    "no user": ({"user": ""}, ["missing_user_id"]),
    "a user of spaces": ({"user": "   "}, ["missing_user_id"]),
    "no item": ({"item": ""}, ["missing_item_id"]),
    "no type": ({"type": ""}, ["missing_event_type"]),
    "unknown type": ({"type": "stare"}, ["unknown_event_type"]),
    "unknown item": ({"item": "i404"}, ["unknown_item"]),
    "negative quantity": ({"qty": "-1"}, ["negative_quantity"]),
    "zero quantity": ({"qty": "0"}, ["zero_quantity"]),
    "negative price": ({"price": "-0.01"}, ["negative_price"]),
    "too early": ({"time": "1999-12-31 23:59:59"}, ["event_time_out_of_range"]),
    "too late": ({"time": "2030-01-01 00:00:01"}, ["event_time_out_of_range"]),
    "everything at once": (
        {"user": "", "item": "i404", "time": "now", "type": "stare", "qty": "-2", "price": "x"},
        [
            "missing_user_id",
            "invalid_event_time",
            "invalid_price",
            "unknown_event_type",
            "negative_quantity",
            "unknown_item",
        ],
    ),
}
GOOD: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "plain": ({}, {c.USER_ID: "u1", c.ITEM_ID: "i1", c.EVENT_TYPE: "purchase", c.QUANTITY: 1.0, c.PRICE: 2.5}),
    "unicode ids": ({"user": "Zoë 🦊", "item": "茶"}, {c.USER_ID: "Zoë 🦊", c.ITEM_ID: "茶"}),
    "comma, in quotes": ({"basket": "a,b"}, {c.BASKET_ID: "a,b"}),
    'a "quoted", word': ({"basket": 'x ""y"", z'}, {c.BASKET_ID: 'x ""y"", z'}),
    "a back\\slash": ({"basket": "c:\\"}, {c.BASKET_ID: "c:\\"}),
    "spaces around": ({"user": " u1 ", "qty": " 2 "}, {c.USER_ID: "u1", c.QUANTITY: 2.0}),
    "missing numbers": ({"qty": "", "price": ""}, {c.QUANTITY: None, c.PRICE: None, c.WEIGHT: None}),
    "scientific": ({"price": "1.5e2"}, {c.PRICE: 150.0}),
    "first moment": ({"time": "2000-01-01 00:00:00"}, {c.EVENT_TIME: dt.datetime(2000, 1, 1)}),
    "last moment": ({"time": "2030-01-01 00:00:00"}, {c.EVENT_TIME: dt.datetime(2030, 1, 1)}),
}
RANGE = {"earliest": "2000-01-01", "latest": "2030-01-01 00:00:00"}


def test_every_fault_has_its_reasons_and_keeps_its_raw_record(spark: SparkSession, tmp_path: Path) -> None:
    raw = {name: event(query=name, **changes) for name, (changes, _) in (FAULTS | GOOD).items()}
    text = "\ufeff" + csv_text(list(raw.values()))
    too_few, too_many = "u1,i1,2024-03-01 10:00:00,buy", "u1,i1,2024-03-01 10:00:00,buy,1,2,,,,surplus"
    (tmp_path / "log.csv").write_text(f"{text}{too_few}\n{too_many}\n", encoding="utf-8")
    known = spark.createDataFrame([("i1",), ("茶",)], ["item_id"])
    rows = judged(spark, events_input(tmp_path / "log.csv", time=RANGE), known_items=known)
    assert len(rows) == len(raw) + 2

    malformed = {row[c.RAW_RECORD]: row for row in rows if row["reasons"] == ["malformed_record"]}
    assert set(malformed) == {too_few, too_many}
    by_name = {row[c.QUERY]: row for row in rows if row[c.RAW_RECORD] not in malformed}
    assert {name: by_name[name]["reasons"] for name in FAULTS} == {name: codes for name, (_, codes) in FAULTS.items()}
    for name in FAULTS:
        assert by_name[name]["outcome"] == "rejected"
        given = {column: value for column, value in raw[name].items() if value != ""}
        assert json.loads(by_name[name][c.RAW_RECORD]) == given
    for name, (_, values) in GOOD.items():
        row = by_name[name]
        assert row["reasons"] == [], name
        assert row[c.RAW_RECORD] is None, name
        assert {column: row[column] for column in values} == values, name
    assert {row[c.SOURCE_FILE].removeprefix("file:").replace("//", "") for row in rows} == {f"{tmp_path}/log.csv"}


def test_crlf_semicolons_and_another_encoding(spark: SparkSession, tmp_path: Path) -> None:
    rows = [event(user=f"Jürgen{n}") for n in range(3)]
    text = csv_text(rows).replace(",", ";").replace("\n", "\r\n").replace("user;", "Käufer;")
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))
    mapping = events_input("x").columns.model_dump(exclude_none=True) | {"user_id": "Käufer"}
    source = events_input(tmp_path / "log.csv", columns=mapping, options={"sep": ";", "encoding": "ISO-8859-1"})
    found = judged(spark, source)
    assert [row["reasons"] for row in found] == [[], [], []]
    assert sorted(row[c.USER_ID] for row in found) == ["Jürgen0", "Jürgen1", "Jürgen2"]


def test_a_character_that_the_read_of_the_header_cuts(spark: SparkSession, tmp_path: Path) -> None:
    # 65,536 bytes are read for the header; whatever its length, one of two files has a character across that border.
    for name in ("a", "ab"):
        text = csv_text([event(user=name, query="é" * 40_000)])
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    assert {row[c.USER_ID] for row in judged(spark, events_input(tmp_path))} == {"a", "ab"}


def test_a_column_without_a_name(spark: SparkSession, tmp_path: Path) -> None:
    lines = csv_text([event(), event(user="u2")]).splitlines()
    (tmp_path / "log.csv").write_text("".join(f"{n if n else ''},{line}\n" for n, line in enumerate(lines)))
    found = judged(spark, events_input(tmp_path))
    assert {row[c.USER_ID]: row["reasons"] for row in found} == {"u1": [], "u2": []}


def test_a_reordered_header_beside_a_normal_one(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [event(user="u1", item="i1", basket="b1")])
    columns = list(reversed(list(event())))
    write_csv(tmp_path / "b.csv", [event(user="u2", item="i2", basket="b2")], columns)
    write_csv(tmp_path / "c.csv", [{"extra": "e"} | event(user="u3", item="i3", basket="b3")], ["extra", *columns])
    found = {row[c.USER_ID]: (row[c.ITEM_ID], row[c.BASKET_ID]) for row in judged(spark, events_input(tmp_path))}
    assert found == {"u1": ("i1", "b1"), "u2": ("i2", "b2"), "u3": ("i3", "b3")}


def test_constants_and_sql_in_the_mapping(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(user="7", item="ab")])
    mapping = {
        "user_id": {"sql": "concat('shop-', user)"},
        "item_id": {"sql": "upper(item)"},
        "event_time": "time",
        "event_type": {"constant": "buy"},
        "price": {"sql": "try_divide(try_cast(price AS double), try_cast(qty AS double))"},
    }
    (row,) = judged(spark, events_input(tmp_path, columns=mapping))
    assert row["reasons"] == []
    assert (row[c.USER_ID], row[c.ITEM_ID], row[c.EVENT_TYPE]) == ("shop-7", "AB", "purchase")
    assert (row[c.PRICE], row[c.QUANTITY]) == (2.5, None)


def test_the_raw_record_is_the_whole_line_and_not_only_the_mapped_columns(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(user="") | {"till": "4"}], [*event(), "till"])
    (row,) = judged(spark, events_input(tmp_path))
    assert json.loads(row[c.RAW_RECORD])["till"] == "4"


def test_rules_of_one_reason_are_alternatives(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(user=f"u{q}", qty=str(q)) for q in (1, 50, 2000)])
    rules = [Rule(reason="odd_quantity", when="quantity > 1000"), Rule(reason="odd_quantity", when="quantity = 50")]
    found = judged(spark, events_input(tmp_path), CleaningSection(rules=rules))
    assert {row[c.USER_ID]: row["reasons"] for row in found} == {
        "u1": [],
        "u50": ["odd_quantity"],
        "u2000": ["odd_quantity"],
    }


def test_a_rule_on_a_missing_value_does_not_hold(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(qty="", price="")])
    rules = [Rule(reason="dear", when="price > 100"), Rule(reason="late", when="event_time > timestamp'2024-01-01'")]
    (row,) = judged(spark, events_input(tmp_path), CleaningSection(rules=rules))
    assert row["reasons"] == ["late"]


@pytest.mark.parametrize(
    "when", ["price >", "prise > 1", "price + 1", "count(*) > 1", "row_number() over (order by price) > 1"]
)
def test_a_rule_that_is_no_condition_is_named(spark: SparkSession, tmp_path: Path, when: str) -> None:
    write_csv(tmp_path / "log.csv", [event()])
    with pytest.raises(UsageError, match="odd_price") as caught:
        judged(spark, events_input(tmp_path), CleaningSection(rules=[Rule(reason="odd_price", when=when)]))
    assert when in caught.value.what


def test_strategy_drop_rejects_what_is_missing(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(user="u1", price=""), event(user="u2", qty=""), event(user="u3")])
    cleaning = CleaningSection.model_validate({"price": "drop", "quantity": "drop"})
    found = {row[c.USER_ID]: row["reasons"] for row in judged(spark, events_input(tmp_path), cleaning)}
    assert found == {"u1": ["missing_price"], "u2": ["missing_quantity"], "u3": []}


@pytest.mark.parametrize("name", ["a b.csv", "log[1].csv", "{log}.csv", "Zoë.csv", "100%.csv"])
def test_any_file_name_is_read(spark: SparkSession, tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "raw" / name, [event()])
    source = events_input(tmp_path / "raw")
    (raw,) = read_raw(spark, source, {c.USER_ID: RawColumn(column="user")}, everything(spark, source))
    assert [row[c.USER_ID] for row in raw.rows.collect()] == ["u1"]


def test_files_without_rows_beside_others(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [event()])
    write_csv(tmp_path / "b.csv", [])
    (tmp_path / "c.csv").touch()
    (tmp_path / "d.csv").write_text("\n\n")
    (tmp_path / "e.csv").write_text("\n" + csv_text([event(user="u2")]))
    assert {row[c.USER_ID] for row in judged(spark, events_input(tmp_path))} == {"u1", "u2"}
