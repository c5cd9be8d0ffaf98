"""The history of the catalogue: what one delivery after another adds, and which version counts at a date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning.item_history import current_items, extended_history
from recbatch.features.item_features import versions_at
from recbatch.tables import columns as c
from recbatch.tables.contracts import in_contract
from recbatch.tables.schemas import ITEM_HISTORY, ITEMS

Row = dict[str, Any]


def _day(number: int) -> dt.datetime:
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number)


def _version(item_id: str, brand: str | None, **changes: Any) -> Row:
    categories = {} if brand is None else {"brand": [brand]}
    fixed = {c.ITEM_ID: item_id, c.TITLE: None, c.CATEGORIES: categories, c.NUMBERS: {}, c.VECTORS: {}, c.IMPUTED: []}
    dates = dict.fromkeys((c.VALID_FROM, c.VALID_TO))
    return fixed | dates | {c.SOURCE_FILE: "a.csv", c.RUN_ID: "run"} | changes


def _extended(spark: SparkSession, deliveries: Iterable[tuple[int, list[Row]]]) -> DataFrame | None:
    """The history after deliveries at (day, versions); cut off from how it was made."""
    history = None
    for day, rows in deliveries:
        delivered = spark.createDataFrame(rows, ITEMS.schema)
        history = in_contract(ITEM_HISTORY, extended_history(history, delivered, _day(day))).localCheckpoint()
    return history


def _brands(rows: DataFrame) -> list[tuple[Any, ...]]:
    """(item, brand, day it became known, day it ends) in order; None before everything."""

    def day(moment: dt.datetime | None) -> int | None:
        return None if moment is None else (moment.replace(tzinfo=dt.UTC) - _day(0)).days

    found = [
        (row[c.ITEM_ID], *row[c.CATEGORIES].get("brand", [None]), day(row[c.KNOWN_FROM]), day(row[c.VALID_TO]))
        for row in rows.collect()
    ]
    return sorted(found, key=str)


FIRST = [_version("a", "Acme"), _version("b", "Zeta"), _version("c", None)]


def test_only_what_a_delivery_changes_is_added(spark: SparkSession) -> None:
    second = [_version("a", "Omega", run_id="2"), _version("b", "Zeta", run_id="2", source_file="b.csv"), FIRST[2]]
    added = [_version("d", "Acme")]
    history = _extended(spark, [(0, FIRST), (5, second + added), (9, second + added)])
    assert history is not None
    assert _brands(history) == [
        ("a", "Acme", None, None),
        ("a", "Omega", 5, None),
        ("b", "Zeta", None, None),
        ("c", None, None, None),
        ("d", "Acme", 5, None),
    ]
    # What has not changed keeps its row, with the run that brought it.
    assert {row[c.RUN_ID] for row in history.where("item_id = 'b'").collect()} == {"run"}


def test_an_item_that_is_no_longer_delivered_has_ended_and_may_come_back(spark: SparkSession) -> None:
    history = _extended(spark, [(0, FIRST), (5, FIRST[1:]), (7, FIRST[1:]), (9, FIRST)])
    assert history is not None
    of_a = [row for row in _brands(history) if row[0] == "a"]
    assert of_a == [("a", "Acme", 5, 5), ("a", "Acme", 9, None), ("a", "Acme", None, None)]
    for day, end in ((4, None), (6, 5), (10, None)):
        (row,) = versions_at(history, _day(day)).where("item_id = 'a'").collect()
        assert row[c.VALID_TO] == (None if end is None else _day(end).replace(tzinfo=None))


def test_of_two_deliveries_without_an_event_between_them_the_second_counts(spark: SparkSession) -> None:
    third = [_version("a", "Omega"), *FIRST[1:]]
    history = _extended(spark, [(0, FIRST), (5, [_version("a", "Wrong"), FIRST[2]]), (5, third)])
    assert history is not None
    assert _brands(history) == [
        ("a", "Acme", None, None),
        ("a", "Omega", 5, None),
        ("b", "Zeta", 5, None),
        ("b", "Zeta", None, None),
        ("c", None, None, None),
    ]


def test_filled_cells_are_no_change_and_a_new_attribute_was_known_before(spark: SparkSession) -> None:
    filled = [_version("c", "Acme", imputed=["brand"]), _version("a", "Acme"), _version("b", "Zeta")]
    history = _extended(spark, [(0, FIRST), (5, filled)])
    assert history is not None
    assert {row[2] for row in _brands(history)} == {None}
    mapped = [row | {c.NUMBERS: {"size": float(n)}} for n, row in enumerate(FIRST)]
    history = _extended(spark, [(0, FIRST), (5, mapped)])
    assert history is not None
    found = {row[c.ITEM_ID]: (row[c.NUMBERS], row[c.KNOWN_FROM]) for row in history.collect()}
    assert found == {name: ({"size": float(n)}, None) for n, name in enumerate("abc")}


def test_a_text_that_changes_is_a_new_version(spark: SparkSession) -> None:
    first, second = (
        [_version("a", "Acme", categories={"name": [text]}), _version("b", None, categories={"name": ["Soap"]})]
        for text in ("Soap", "Soap.")
    )
    history = _extended(spark, [(0, first), (5, second)])
    assert history is not None
    found = sorted((row[c.ITEM_ID], *row[c.CATEGORIES]["name"], row[c.KNOWN_FROM] is None) for row in history.collect())
    assert found == [("a", "Soap", True), ("a", "Soap.", False), ("b", "Soap", True)]


def test_a_vector_that_changes_is_a_new_version_and_a_new_one_was_known_before(spark: SparkSession) -> None:
    def rows(of_a: list[float], **of_b: list[float]) -> list[Row]:
        return [_version("a", "Acme", vectors={"look": of_a}), _version("b", "Zeta", vectors=of_b)]

    plain = [_version("a", "Acme"), _version("b", "Zeta")]
    history = _extended(
        spark, [(0, plain), (3, rows([1.0, 2.0])), (5, rows([1.0, 2.0])), (7, rows([1.0, 2.5], look=[0.0]))]
    )
    assert history is not None
    found = [(row[c.ITEM_ID], dict(row[c.VECTORS]), row[c.KNOWN_FROM]) for row in history.collect()]
    on_seventh = _day(7).replace(tzinfo=None)
    assert sorted(found, key=str) == sorted(
        [
            ("a", {"look": [1.0, 2.0]}, None),
            ("a", {"look": [1.0, 2.5]}, on_seventh),
            ("b", {}, None),
            ("b", {"look": [0.0]}, on_seventh),
        ],
        key=str,
    )


def test_versions_of_one_catalogue_take_turns(spark: SparkSession) -> None:
    rows = [
        _version("a", "Acme", valid_to=_day(3)),
        _version("a", "Omega", valid_from=_day(3)),
        _version("a", "Later", valid_from=_day(8), valid_to=_day(9)),
    ]
    history = _extended(spark, [(0, rows)])
    assert history is not None
    found = {day: [row[1] for row in _brands_at(history, day)] for day in (0, 2, 3, 8, 9)}
    assert found == {0: ["Acme"], 2: ["Acme"], 3: ["Omega"], 8: ["Later"], 9: ["Omega"]}
    (current,) = current_items(spark.createDataFrame(rows, ITEMS.schema)).collect()
    assert current[c.CATEGORIES] == {"brand": ["Later"]}


def _brands_at(history: DataFrame, day: int) -> list[tuple[Any, ...]]:
    return _brands(versions_at(history, _day(day)).withColumn(c.KNOWN_FROM, F.lit(None).cast("timestamp")))


def test_at_every_date_the_last_delivery_before_it_counts(spark: SparkSession) -> None:
    """Whatever comes later: what is seen at a date is what the deliveries before it said, and never changes again."""
    random = np.random.default_rng(8)
    deliveries = []
    for _ in range(5):
        # Of 40 items some are missing, some unchanged, some without a brand.
        brands = {f"i{n}": random.choice(["X", "Y", None]) for n in range(40) if random.random() < 0.8}
        deliveries.append({name: None if brand is None else str(brand) for name, brand in brands.items()})
    dated = [(day, [_version(*one) for one in sorted(found.items())]) for day, found in enumerate(deliveries)]
    history = _extended(spark, dated)
    assert history is not None
    for day, found in enumerate(deliveries):
        seen = {name: brand for name, brand, _, end in _brands_at(history, day + 1) if end is None}
        assert seen == found, day
    again = extended_history(history, spark.createDataFrame(dated[-1][1], ITEMS.schema), _day(9))
    assert _brands(again) == _brands(history)  # the same delivery once more adds nothing


def test_a_first_delivery_was_known_always(spark: SparkSession) -> None:
    history = _extended(spark, [(0, FIRST)])
    assert history is not None
    assert [row[2] for row in _brands(history)] == [None, None, None]
    assert versions_at(history, _day(-1000)).count() == 3


@pytest.mark.parametrize(("day", "known"), [(5, ["Acme"]), (6, ["Omega"])])
def test_a_cut_does_not_know_what_came_with_its_own_moment(spark: SparkSession, day: int, known: list[str]) -> None:
    history = _extended(spark, [(0, [_version("a", "Acme")]), (5, [_version("a", "Omega")])])
    assert history is not None
    assert [row[1] for row in _brands_at(history, day)] == known
