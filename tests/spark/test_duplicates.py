"""Every row of the log is accounted for once, and which one of several is kept does not depend on the layout."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import suspects
from recbatch.config.cleaning import CleaningSection
from recbatch.tables import columns as c
from tests.spark.support import EVENT_COLUMNS, Row, event, events_input, judged, write_csv

VALUES = (
    c.USER_ID,
    c.ITEM_ID,
    c.EVENT_TYPE,
    c.EVENT_TIME,
    c.BASKET_ID,
    c.QUERY,
    c.QUANTITY,
    c.PRICE,
    c.WEIGHT,
)
# Four rows of one key: two are equal, and the others differ in what is not part of the key.
ROWS = [
    event(basket="b1", price="1"),
    event(basket="b1", price="1"),
    event(basket="b1", price="2"),
    event(basket="b1", price="", query="q"),
    event(basket="b2"),
    event(basket="b2"),
    event(basket="b2"),
    event(basket=""),
    event(basket=""),
    event(user="", basket="b1"),
    event(user="", basket="b1"),
    event(price="-1", basket="b1"),
    event(time="2024-03-01 10:00:01", basket="b1"),
]


def _spread(folder: Path, rows: list[Row], files: int) -> Path:
    for number in range(files):
        write_csv(folder / f"{number}.csv", rows[number::files])
    return folder


def _outcomes(found: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((row["outcome"], *(row[name] for name in VALUES)) for row in found)


def test_which_rows_are_kept_does_not_depend_on_files_and_partitions(spark: SparkSession, tmp_path: Path) -> None:
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    found = []
    try:
        for files, shuffle in ((1, 2), (3, 1), (8, 5)):
            spark.conf.set("spark.sql.shuffle.partitions", shuffle)
            order = ROWS if files != 3 else ROWS[::-1]
            found.append(_outcomes(judged(spark, events_input(_spread(tmp_path / str(files), order, files)))))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert found[0] == found[1] == found[2]
    assert Counter(outcome for outcome, *_ in found[0].elements()) == {
        "accepted": 4,
        "exact_duplicate": 1 + 2 + 1,
        "key_duplicate": 2,
        "rejected": 3,
    }


def test_the_key_is_what_the_configuration_says(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [event(basket=str(n), item=f"i{n % 2}") for n in range(6)])
    cleaning = CleaningSection(duplicate_key=["user_id", "item_id"])
    found = Counter(row["outcome"] for row in judged(spark, events_input(tmp_path), cleaning))
    assert found == {"accepted": 2, "key_duplicate": 4}


CELLS = {
    "user": ["u1", "u2", "", " "],
    "item": ["i1", "i2", "茶", ""],
    "time": ["2024-03-01 10:00:00", "2024-03-01 10:00:01", "", "2024-02-30 00:00:00"],
    "type": ["buy", "look", "", "stare"],
    "qty": ["1", "2", "0", "-3", "x", ""],
    "price": ["1", "NaN", "", "-2"],
    "weight": ["", "1", "?"],
    "basket": ["", "a,b", 'a "b"', "\\"],
    "query": ["", "é"],
}
# Most rows are good, so that duplicates meet.
GOOD = st.fixed_dictionaries({name: st.sampled_from(CELLS[name][:2]) for name in EVENT_COLUMNS})
MESSY = st.fixed_dictionaries({name: st.sampled_from(CELLS[name]) for name in EVENT_COLUMNS})


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(GOOD | MESSY, min_size=1, max_size=25), files=st.integers(1, 4))
def test_every_row_is_accounted_for_exactly_once(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, rows: list[Row], files: int
) -> None:
    folder = _spread(tmp_path_factory.mktemp("messy"), rows, files)
    cleaning = CleaningSection()
    # It compares the counts of the run with the rows as well.
    marked = judged(spark, events_input(folder), cleaning)
    counts = Counter(row["outcome"] for row in marked)
    assert len(rows) == len(marked)
    accepted = [tuple(row[name] for name in VALUES) for row in marked if row["outcome"] == "accepted"]
    keys = [tuple(row[name] for name in cleaning.duplicate_key) for row in marked if row["outcome"] == "accepted"]
    valid = [row for row in marked if row["outcome"] != "rejected"]
    # One row a key is accepted; what equals another valid row in all values is an exact duplicate.
    assert Counter(keys) == dict.fromkeys((tuple(row[name] for name in cleaning.duplicate_key) for row in valid), 1)
    contents = {tuple(row[name] for name in VALUES) for row in valid}
    assert counts["exact_duplicate"] == len(valid) - len(contents)
    assert counts["key_duplicate"] == len(contents) - len(accepted)
    assert counts["rejected"] == len(rows) - len(valid)
    assert all((row["outcome"] == "rejected") == (row["reasons"] != []) for row in marked)
    wrong = sum(_is_wrong(row) for row in rows)
    assert counts["rejected"] == wrong
    no_user = sum(not row["user"].strip() for row in rows)
    assert no_user == sum("missing_user_id" in row["reasons"] for row in marked)


def _burst(user: str, n: int, seconds: int) -> list[dict[str, str]]:
    """Events of one user, evenly spread from midnight on."""
    start = dt.datetime(2024, 3, 1)
    times = [start + dt.timedelta(seconds=number * seconds) for number in range(n)]
    return [event(user=user, item=f"i{number}", time=str(moment)) for number, moment in enumerate(times)]


BOTS = CleaningSection.model_validate({"bots": {"max_events_a_day": 12, "max_events_a_minute": 5}})


def test_bots_are_rejected_with_all_their_rows_and_nobody_else(spark: SparkSession, tmp_path: Path) -> None:
    busy, fast = _burst("busy", 13, 3600), _burst("fast", 6, 10)
    rows = [
        *[*busy, busy[0], event(user="busy", time="2024-05-01 10:00:00"), event(user="busy", qty="-1")],
        *[*fast, event(user="fast", time="2024-05-01 10:00:00")],
        *_burst("both", 14, 1),
        # Twelve a day and five a minute are not too many, and what is delivered twice counts once.
        *[*_burst("person", 12, 3600), *_burst("person", 12, 3600)],
        *_burst("shopper", 5, 12),
    ]
    found = judged(spark, events_input(_spread(tmp_path, rows, 3)), BOTS)
    reasons = Counter((row[c.USER_ID], row["outcome"], *row["reasons"]) for row in found)
    assert reasons == {
        ("busy", "rejected", "bot_volume"): 15,
        ("busy", "rejected", "negative_quantity", "bot_volume"): 1,
        ("fast", "rejected", "bot_rate"): 7,
        ("both", "rejected", "bot_volume", "bot_rate"): 14,
        ("person", "accepted"): 12,
        ("person", "exact_duplicate"): 12,
        ("shopper", "accepted"): 5,
    }


@pytest.mark.parametrize(
    ("colliding", "a_minute", "outcomes"),
    [
        ("user_hash", 9, {"rejected": 31}),
        ("user_hash", 10, {"accepted": 30, "exact_duplicate": 1}),
        ("key_hash", 10, {"accepted": 30, "exact_duplicate": 1}),
    ],
)
def test_a_collision_of_hashes_accuses_nobody(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    colliding: str,
    a_minute: int,
    outcomes: dict[str, int],
) -> None:
    # Three users with ten distinct events each, all in one minute.
    rows = [event(user=f"u{n % 3}", item=f"i{n}", basket="") for n in range(30)] + [event(user="u0", item="i0")]
    # All rows collide: everything that is then decided is decided by the rows themselves.
    monkeypatch.setattr(suspects, colliding, lambda _: F.lit(7).cast("long"))
    bots = {"max_events_a_day": 10, "max_events_a_minute": a_minute}
    found = judged(spark, events_input(_spread(tmp_path, rows, 2)), CleaningSection.model_validate({"bots": bots}))
    assert Counter(row["outcome"] for row in found) == outcomes


def _is_wrong(row: Row) -> bool:
    allowed = {name: CELLS[name][:2] for name in ("user", "time", "type", "weight")}
    allowed |= {"item": CELLS["item"][:3], "qty": ["1", "2", ""], "price": ["1", ""]}
    return any(row[name] not in values for name, values in allowed.items())
