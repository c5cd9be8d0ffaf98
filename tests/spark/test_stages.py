"""The stages `clean` and `features` whole: what they write adds up, and no cut knows what came after it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recbatch.config.sections import ItemsInput
from recbatch.context import StageContext
from recbatch.errors import InputContractError
from recbatch.stages.clean import clean
from recbatch.stages.features import build_features
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from tests.spark.support import event, events_input, make_config, make_context, rows_of, write_csv

START = dt.datetime(2024, 1, 1)
DAYS, HOLDOUT, VALIDATION = 90, 20, 15
ITEM_COLUMNS = ["id", "brand", "size", "from"]
REJECTED = [event(user="", query="r1"), event(user="r", price="x", qty="0", query="r2")]


def _log() -> list[dict[str, str]]:
    """Events of 90 days; in the last of them everything is dearer, more is missing, and the users want other items."""
    random = np.random.default_rng(3)
    rows = []
    for n in range(500):
        day = DAYS * n / 500
        late = day > DAYS - HOLDOUT
        price = float(random.integers(1, 40)) / 4 * (100 if late else 1)
        rows.append(
            event(
                user=f"u{random.integers(0, 25)}",
                item=f"i{random.integers(10 if late else 0, 20 if late else 15)}",
                time=f"{START + dt.timedelta(days=day):%Y-%m-%d %H:%M:%S}",
                type="buy" if random.random() < 0.5 else "look",
                qty="" if random.random() < 0.3 else str(random.integers(1, 4)),
                price="" if random.random() < (0.5 if late else 0.2) else str(price),
                basket=str(n),
            )
        )
    return rows


def _catalogue() -> list[dict[str, str]]:
    random = np.random.default_rng(4)
    rows = []
    for n in range(20):
        late = n >= 15
        rows.append(
            {
                "id": f"i{n}",
                "brand": "" if n % 5 == 0 else "New" if late else f"B{random.integers(0, 3)}",
                "size": "" if n % 6 == 0 else str(1000 if late else n),
                # The last items come when the test has begun.
                "from": f"{START + dt.timedelta(days=DAYS - 5 if late else 0):%Y-%m-%d}",
            }
        )
    return rows


def _items_input(path: Path) -> ItemsInput:
    return ItemsInput.model_validate(
        {
            "path": str(path),
            "item_id": "id",
            "valid_from": "from",
            "time": {"format": "yyyy-MM-dd"},
            "attributes": {
                "brand": {"source": "brand", "missing": "mode"},
                "size": {"source": "size", "kind": "number", "missing": "mean"},
            },
        }
    )


def _context(
    spark: SparkSession, folder: Path, log: Sequence[Mapping[str, str]], as_of: dt.datetime | None, version: int = 1
) -> StageContext:
    for number in range(2):
        write_csv(folder / "raw" / f"{number}.csv", log[number::2])
    config = make_config(
        folder / "warehouse",
        events_input(folder / "raw"),
        _items_input(folder / "items.csv"),
        cleaning={"price": "median", "quantity": "mean"},
        features={
            "buckets": 3,
            "holdout_days": HOLDOUT,
            "validation_days": VALIDATION,
            "sequence_length": 8,
            "recent_days": 10,
            "neighbours": {"window": 4},
        },
    )
    return make_context(spark, config, version=version, as_of=as_of)


@dataclass(frozen=True)
class Warehouse:
    context: StageContext
    cleaned: StageResult
    cut: dt.datetime


@pytest.fixture(scope="module")
def whole(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Both stages over the whole log, with an exact and a key duplicate and two rejected rows."""
    folder = tmp_path_factory.mktemp("whole")
    write_csv(folder / "items.csv", [*_catalogue(), {"brand": "nobody's"}], ITEM_COLUMNS)
    log = _log()
    context = _context(spark, folder, [*log, log[0], log[1] | {"qty": "17"}, *REJECTED], None)
    cleaned = clean(context)
    build_features(context)
    last = dt.datetime.fromisoformat(log[-1]["time"]).replace(tzinfo=dt.UTC)
    return Warehouse(context, cleaned, last + dt.timedelta(seconds=1) - dt.timedelta(days=HOLDOUT))


@pytest.fixture(scope="module")
def past(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, whole: Warehouse) -> Warehouse:
    """Both stages over nothing but what came before the cut of the test in `whole`."""
    folder = tmp_path_factory.mktemp("past")
    write_csv(folder / "items.csv", _catalogue(), ITEM_COLUMNS)
    log = [row for row in _log() if dt.datetime.fromisoformat(row["time"]).replace(tzinfo=dt.UTC) < whole.cut]
    assert 300 < len(log) < 450
    context = _context(spark, folder, log, whole.cut)
    cleaned = clean(context)
    build_features(context)
    return Warehouse(context, cleaned, whole.cut)


def test_every_row_is_in_a_table_or_counted(whole: Warehouse) -> None:
    counts = whole.cleaned.row_counts
    assert counts["events:read"] == 504
    assert (counts["events:exact_duplicate"], counts["events:key_duplicate"], counts["events:rejected"]) == (1, 1, 2)
    events = rows_of(whole.context, schemas.EVENTS)
    assert len(events) == counts["events:accepted"] == 500
    assert (counts["items:read"], counts["items:accepted"], counts["items:rejected"]) == (21, 20, 1)
    rejected = rows_of(whole.context, schemas.REJECTED_EVENTS)
    assert Counter(tuple(row[c.REASONS]) for row in rejected) == {
        ("missing_user_id",): 1,
        ("invalid_price", "zero_quantity"): 1,
    }
    (item,) = rows_of(whole.context, schemas.REJECTED_ITEMS)
    assert (item[c.REASONS], item[c.RAW_RECORD]) == (["missing_item_id"], '{"brand":"nobody\'s"}')
    for row in [*events, *rejected, item, *rows_of(whole.context, schemas.ITEMS)]:
        assert row[c.RUN_ID] == "run-1"
        assert row[c.SOURCE_FILE].endswith(".csv")
    assert "504 read = 500 accepted + 2 duplicates + 2 rejected" in whole.cleaned.message


def test_events_hold_the_values_of_the_log(whole: Warehouse) -> None:
    found = {row[c.BASKET_ID]: row for row in rows_of(whole.context, schemas.EVENTS)}
    log = _log()
    quantities = [float(row["qty"]) for row in log if row["qty"]]
    prices = [float(row["price"]) for row in log if row["price"]]
    fills = {c.PRICE: float(np.median(prices)), c.QUANTITY: float(np.mean(quantities))}
    for raw in log[2:]:
        row = found[raw["basket"]]
        moment = dt.datetime.fromisoformat(raw["time"])
        assert (row[c.USER_ID], row[c.ITEM_ID], row[c.EVENT_TIME]) == (raw["user"], raw["item"], moment)
        assert row[c.EVENT_DATE] == moment.date()
        assert row[c.EVENT_TYPE] == {"buy": "purchase", "look": "view"}[raw["type"]]
        assert row[c.WEIGHT] == 1.0
        missing = {name for name, value in ((c.QUANTITY, raw["qty"]), (c.PRICE, raw["price"])) if value == ""}
        assert set(row[c.IMPUTED]) == missing
        for name, value in ((c.QUANTITY, raw["qty"]), (c.PRICE, raw["price"])):
            # The duplicates of the first rows shift the mean a little.
            assert row[name] == (float(value) if value else pytest.approx(fills[name], rel=0.02))


def _same(one: Any, other: Any, where: str) -> None:
    """Equal, but for the last digits of sums that were added in another order."""
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-7), where
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for a, b in zip(one, other, strict=True):
            _same(a, b, where)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _same(one[key], other[key], f"{where} {key}")
    else:
        assert one == other, where


def _content(context: StageContext, spec: TableSpec) -> dict[Any, Any]:
    """The rows by their key; neighbours of equal weight may come in either order."""
    key = {c.USER_ID, c.ITEM_IDX, c.COLUMN_NAME} & set(spec.schema.names)
    name = c.USER_ID if c.USER_ID in key else key.pop()
    rows = rows_of(context, spec)
    if c.NEIGHBOURS in spec.schema.names:
        return {row[name]: dict(zip(row[c.NEIGHBOURS], row[c.WEIGHTS], strict=True)) for row in rows}
    return {row[name]: row for row in rows}


RELEASED = (
    schemas.USER_SEQUENCES,
    schemas.ITEM_FEATURES,
    schemas.NORMALIZATION,
    schemas.ITEM_NEIGHBOURS,
    schemas.ITEM_POPULARITY,
)
EVALUATED = (
    schemas.EVALUATION_USER_SEQUENCES,
    schemas.EVALUATION_ITEM_FEATURES,
    schemas.EVALUATION_NORMALIZATION,
    schemas.EVALUATION_ITEM_NEIGHBOURS,
    schemas.EVALUATION_ITEM_POPULARITY,
)


@pytest.mark.parametrize(("evaluated", "released"), zip(EVALUATED, RELEASED, strict=True), ids=lambda spec: spec.name)
def test_what_comes_after_the_test_cut_changes_nothing_before_it(
    whole: Warehouse, past: Warehouse, evaluated: TableSpec, released: TableSpec
) -> None:
    known = _content(past.context, released)
    assert known
    _same(_content(whole.context, evaluated), known, evaluated.name)
    # The later part of the log is not without effect: it changes the release.
    with pytest.raises(AssertionError):
        _same(_content(whole.context, released), known, released.name)


@pytest.mark.parametrize(
    ("validated", "evaluated"),
    [
        (schemas.VALIDATION_ITEM_NEIGHBOURS, schemas.EVALUATION_ITEM_NEIGHBOURS),
        (schemas.VALIDATION_ITEM_POPULARITY, schemas.EVALUATION_ITEM_POPULARITY),
    ],
    ids=lambda spec: spec.name,
)
def test_what_comes_after_the_validation_cut_changes_nothing_before_it(
    spark: SparkSession, tmp_path: Path, whole: Warehouse, validated: TableSpec, evaluated: TableSpec
) -> None:
    cut = whole.cut - dt.timedelta(days=VALIDATION)
    events = spark.read.format("delta").load(whole.context.tables.path(schemas.EVENTS))
    assert events.where(events[c.EVENT_TIME] < cut).count() < events.where(events[c.EVENT_TIME] < whole.cut).count()
    found, later = _content(whole.context, validated), _content(whole.context, evaluated)
    assert found
    with pytest.raises(AssertionError):
        _same(found, later, validated.name)


def test_targets_are_what_users_did_after_the_cut(whole: Warehouse) -> None:
    index = {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in rows_of(whole.context, schemas.ITEM_INDEX)}
    expected: dict[str, set[int]] = {}
    for row in _log():
        if dt.datetime.fromisoformat(row["time"]).replace(tzinfo=dt.UTC) >= whole.cut:
            expected.setdefault(row["user"], set()).add(index[row["item"]])
    found = {row[c.USER_ID]: row[c.TARGETS] for row in rows_of(whole.context, schemas.EVALUATION_TARGETS)}
    assert found == {user: sorted(items) for user, items in expected.items()}
    assert len(found) > 10


def test_snapshots_are_the_three_cuts(whole: Warehouse) -> None:
    found = {row[c.SNAPSHOT]: row[c.AS_OF].replace(tzinfo=dt.UTC) for row in rows_of(whole.context, schemas.SNAPSHOTS)}
    assert found == {
        "release": whole.cut + dt.timedelta(days=HOLDOUT),
        "evaluation": whole.cut,
        "validation": whole.cut - dt.timedelta(days=VALIDATION),
    }


def test_items_that_begin_after_a_cut_are_not_eligible_at_it(whole: Warehouse) -> None:
    def eligible(spec: TableSpec) -> set[str]:
        return {row[c.ITEM_ID] for row in rows_of(whole.context, spec) if row[c.ELIGIBLE]}

    early = {f"i{n}" for n in range(15)}
    assert eligible(schemas.EVALUATION_ITEM_FEATURES) == early
    assert eligible(schemas.ITEM_FEATURES) == early | {f"i{n}" for n in range(15, 20)}


def test_a_log_shorter_than_the_holdout_is_refused(whole: Warehouse) -> None:
    early = START.replace(tzinfo=dt.UTC) + dt.timedelta(days=HOLDOUT + VALIDATION - 1)
    context = make_context(whole.context.spark, whole.context.config, version=9, as_of=early)
    versions = {spec.name: context.tables.version(spec) for spec in schemas.ALL.values()}
    with pytest.raises(InputContractError, match="2024-01-01"):
        build_features(context)
    with pytest.raises(InputContractError, match="nothing before --as-of"):
        build_features(make_context(context.spark, context.config, as_of=dt.datetime(2023, 1, 1, tzinfo=dt.UTC)))
    assert {spec.name: context.tables.version(spec) for spec in schemas.ALL.values()} == versions


def test_a_second_run_adds_new_items_and_keeps_the_old_numbers(spark: SparkSession, past: Warehouse) -> None:
    folder = Path(past.context.config.warehouse).parent
    before = {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in rows_of(past.context, schemas.ITEM_INDEX)}
    codes = {(row[c.FIELD], row[c.VALUE]): row[c.CODE] for row in rows_of(past.context, schemas.CATEGORY_INDEX)}
    new = [{"id": f"a{n}", "brand": "Brandnew"} for n in range(5)]
    write_csv(folder / "items.csv", [*new, *_catalogue()[3:]], ITEM_COLUMNS)
    context = make_context(spark, past.context.config, version=2, as_of=past.cut)
    clean(context)
    build_features(context)
    after = {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in rows_of(context, schemas.ITEM_INDEX)}
    assert {name: after[name] for name in before} == before
    assert sorted(after.values()) == list(range(25))
    assert sorted(after[f"a{n}"] for n in range(5)) == list(range(20, 25))
    grown = {(row[c.FIELD], row[c.VALUE]): row[c.CODE] for row in rows_of(context, schemas.CATEGORY_INDEX)}
    assert grown == codes | {("brand", "Brandnew"): len(codes) + 1}
    features = {row[c.ITEM_ID]: row for row in rows_of(context, schemas.ITEM_FEATURES)}
    assert len(features) == 25
    # An item that left the catalogue keeps its number and is recommended no more.
    assert [features[f"i{n}"][c.ELIGIBLE] for n in range(3)] == [False] * 3
    assert features["a0"][c.CATEGORIES] == [[len(codes) + 1]]
