"""The stages `clean` and `features` whole: what they write adds up, and no cut knows what came after it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recbatch.config.inputs import ItemsInput
from recbatch.context import Request, StageContext
from recbatch.errors import InputContractError
from recbatch.stages.clean import clean
from recbatch.stages.features import build_features
from recbatch.stages.inputs import normalization_drift
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from tests.spark.support import Row, event, events_input, make_config, make_context, rows_of, write_csv

START = dt.datetime(2024, 1, 1)
DAYS, HOLDOUT, VALIDATION = 90, 20, 20
N_EARLY, N_ITEMS = 15, 20
ITEM_COLUMNS = ["id", "name", "brand", "size", "look", "from"]
REJECTED = [event(user="", query="r1"), event(user="r", price="x", qty="0", query="r2")]


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


def _log() -> list[dict[str, str]]:
    """Events of 90 days; in the last of them everything is dearer, more is missing, and the users want other items."""
    random = np.random.default_rng(3)
    rows = []
    for n in range(500):
        # Events on every fifth day: a date is a file.
        day = n * DAYS // 500 // 5 * 5 + n / 500
        late = day > DAYS - HOLDOUT
        price = float(random.integers(1, 40)) / 4 * (100 if late else 1)
        rows.append(
            event(
                user=f"u{random.integers(0, 25)}",
                item=f"i{random.integers(10 if late else 0, N_ITEMS if late else N_EARLY)}",
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
    for n in range(N_ITEMS):
        late = n >= N_EARLY
        rows.append(
            {
                "id": f"i{n}",
                "name": "" if n % 7 == 0 else f"{'Late' if late else 'Early'} thing, size {n % 3}",
                "brand": "" if n % 5 == 0 else "New" if late else f"B{random.integers(0, 3)}",
                "size": "" if n % 6 == 0 else str(1000 if late else n),
                "look": "" if n % 4 == 0 else f"[{3 * n}, {-4 * n}]",
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
                "name": {"source": "name", "kind": "text"},
                "look": {"source": "look", "kind": "vector", "size": 2},
            },
        }
    )


@dataclass(frozen=True)
class Run:
    """Both stages once: their context, what `clean` said, and the tables as they were then."""

    context: StageContext
    cleaned: StageResult
    built: StageResult
    tables: dict[str, list[dict[str, Any]]]


def _run(
    spark: SparkSession, folder: Path, log: Sequence[Row], items: Sequence[Row], version: int, as_of: dt.datetime | None
) -> Run:
    write_csv(folder / "items.csv", items, ITEM_COLUMNS)
    for number in range(2):
        write_csv(folder / "raw" / f"{number}.csv", log[number::2])
    config = make_config(
        folder / "warehouse",
        events_input(folder / "raw"),
        _items_input(folder / "items.csv"),
        # One of 21 items is rejected, which is not more than the limit.
        cleaning={"price": "median", "quantity": "mean", "max_rejected_share": 1 / 21},
        features={
            "buckets": 2,
            "holdout_days": HOLDOUT,
            "validation_days": VALIDATION,
            "cut_alignment_days": 0,
            "sequence_length": 8,
            "recent_days": 10,
            "neighbours": {"window": 4},
        },
    )
    # The second run finds the files rewritten.
    context = make_context(spark, config, version=version, as_of=as_of, request=Request(full_refresh=version > 1))
    cleaned = clean(context)
    built = build_features(context)
    written = [*RELEASED, *EVALUATED, schemas.ITEM_INDEX, schemas.CATEGORY_INDEX]
    return Run(context, cleaned, built, {spec.name: rows_of(context, spec) for spec in written})


@dataclass(frozen=True)
class Warehouse:
    """`past` ran on nothing but what came before `cut`; `whole`, after it, on the whole log with `cut` for its test."""

    past: Run
    whole: Run
    cut: dt.datetime


@pytest.fixture(scope="module")
def warehouse(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("stages")
    log, items = _log(), _catalogue()
    cut = _moment(log[-1]) + dt.timedelta(seconds=1) - dt.timedelta(days=HOLDOUT)
    early = [row for row in log if _moment(row) < cut]
    assert 300 < len(early) < 450
    past = _run(spark, folder, early, items[:N_EARLY], 1, cut)
    # An exact and a key duplicate, and rows that are rejected.
    log += [log[0], log[1] | {"query": "again"}, *REJECTED]
    return Warehouse(past, _run(spark, folder, log, [*items, {"brand": "nobody's"}], 2, None), cut)


def _moment(row: Row) -> dt.datetime:
    return dt.datetime.fromisoformat(row["time"]).replace(tzinfo=dt.UTC)


def test_every_row_is_in_a_table_or_counted(warehouse: Warehouse) -> None:
    counts = warehouse.whole.cleaned.row_counts
    assert counts["events:read"] == 504
    assert (counts["events:exact_duplicate"], counts["events:key_duplicate"], counts["events:rejected"]) == (1, 1, 2)
    events = rows_of(warehouse.whole.context, schemas.EVENTS)
    assert len(events) == counts["events:accepted"] == 500
    assert (counts["items:read"], counts["items:accepted"], counts["items:rejected"]) == (21, 20, 1)
    rejected = rows_of(warehouse.whole.context, schemas.REJECTED_EVENTS)
    assert Counter(tuple(row[c.REASONS]) for row in rejected) == {
        ("missing_user_id",): 1,
        ("invalid_price", "zero_quantity"): 1,
    }
    (item,) = rows_of(warehouse.whole.context, schemas.REJECTED_ITEMS)
    assert (item[c.REASONS], item[c.RAW_RECORD]) == (["missing_item_id"], '{"brand":"nobody\'s"}')
    for row in [*events, *rejected, item, *rows_of(warehouse.whole.context, schemas.ITEMS)]:
        assert row[c.RUN_ID] == "run-2"
        assert row[c.SOURCE_FILE].endswith(".csv")
    assert "504 read = 500 accepted + 2 duplicates + 2 rejected" in warehouse.whole.cleaned.message


def test_events_hold_the_values_of_the_log(warehouse: Warehouse) -> None:
    found = {row[c.BASKET_ID]: row for row in rows_of(warehouse.whole.context, schemas.EVENTS)}
    log = _log()
    quantities = [float(row["qty"]) for row in log if row["qty"]]
    prices = [float(row["price"]) for row in log if row["price"]]
    fills = {c.PRICE: float(np.median(prices)), c.QUANTITY: float(np.mean(quantities))}
    for raw in log:
        row = found[raw["basket"]]
        moment = _moment(raw)
        assert (row[c.USER_ID], row[c.ITEM_ID], row[c.EVENT_TIME]) == (raw["user"], raw["item"], moment)
        assert row[c.EVENT_DATE] == moment.date()
        assert row[c.EVENT_TYPE] == {"buy": "purchase", "look": "view"}[raw["type"]]
        assert row[c.WEIGHT] == 1.0
        missing = {name for name, value in ((c.QUANTITY, raw["qty"]), (c.PRICE, raw["price"])) if value == ""}
        assert set(row[c.IMPUTED]) == missing | {c.WEIGHT}
        for name, value in ((c.QUANTITY, raw["qty"]), (c.PRICE, raw["price"])):
            assert row[name] == (float(value) if value else pytest.approx(fills[name]))


def _same(one: Any, other: Any, where: str) -> None:
    """Equal, but for the last digits of sums that were added in another order."""
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-7, nan_ok=True), where
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


def _by_key(spec: TableSpec, rows: list[dict[str, Any]]) -> dict[Any, Any]:
    """The rows by their key; neighbours of equal weight may come in either order."""
    (key,) = (name for name in (c.USER_ID, c.ITEM_IDX, c.COLUMN_NAME) if isinstance(rows[0].get(name), str | int))
    if c.NEIGHBOURS in spec.schema.names:
        return {row[key]: dict(zip(row[c.NEIGHBOURS], row[c.WEIGHTS], strict=True)) for row in rows}
    return {row[key]: {name: value for name, value in row.items() if name != c.RUN_ID} for row in rows}


@pytest.mark.parametrize(
    ("evaluated", "released"), list(zip(EVALUATED, RELEASED, strict=True)), ids=lambda spec: spec.name
)
def test_what_comes_after_the_test_cut_changes_nothing_before_it(
    warehouse: Warehouse, evaluated: TableSpec, released: TableSpec
) -> None:
    known = _by_key(released, warehouse.past.tables[released.name])
    found = _by_key(evaluated, rows_of(warehouse.whole.context, evaluated))
    new = range(N_EARLY, N_ITEMS)
    if evaluated is schemas.EVALUATION_ITEM_FEATURES:
        # Items that came later have a row, as every item of the index, and nothing in it.
        added = [found.pop(number) for number in new]
        assert all((row[c.CATEGORIES], str(row[c.NUMBERS])) == ([[0], [0]], "[nan, nan]") for row in added)
        assert all(row[c.VECTORS] == [0.0, 0.0] and not row[c.ELIGIBLE] for row in added)
    _same(found, known, evaluated.name)
    # The later part of the log is not without effect: it changes the release.
    with pytest.raises(AssertionError):
        _same(_by_key(released, warehouse.whole.tables[released.name]), known, released.name)


@pytest.mark.parametrize(
    ("validated", "evaluated"),
    [
        (schemas.VALIDATION_ITEM_NEIGHBOURS, schemas.EVALUATION_ITEM_NEIGHBOURS),
        (schemas.VALIDATION_ITEM_POPULARITY, schemas.EVALUATION_ITEM_POPULARITY),
    ],
    ids=lambda spec: spec.name,
)
def test_what_comes_after_the_validation_cut_changes_nothing_before_it(
    warehouse: Warehouse, validated: TableSpec, evaluated: TableSpec
) -> None:
    # Both windows are equally long: the validation cut is the evaluation cut of the run in the past.
    known = _by_key(evaluated, warehouse.past.tables[evaluated.name])
    _same(_by_key(validated, rows_of(warehouse.whole.context, validated)), known, validated.name)
    with pytest.raises(AssertionError):
        _same(_by_key(evaluated, warehouse.whole.tables[evaluated.name]), known, evaluated.name)


def test_a_second_run_adds_new_items_and_keeps_the_old_numbers(warehouse: Warehouse) -> None:
    def numbers(run: Run) -> dict[str, int]:
        return {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in run.tables[schemas.ITEM_INDEX.name]}

    def codes(run: Run) -> dict[tuple[str, str], int]:
        return {(row[c.FIELD], row[c.VALUE]): row[c.CODE] for row in run.tables[schemas.CATEGORY_INDEX.name]}

    before, after = numbers(warehouse.past), numbers(warehouse.whole)
    assert sorted(before.values()) == list(range(N_EARLY))
    assert {name: after[name] for name in before} == before
    assert sorted(after[f"i{n}"] for n in range(N_EARLY, N_ITEMS)) == list(range(N_EARLY, N_ITEMS))
    assert len(after) == N_ITEMS
    known, found = codes(warehouse.past), codes(warehouse.whole)
    added = {key: code for key, code in found.items() if key not in known}
    assert found == known | added
    # The brand, "late" and "late thing".
    assert ("brand", "New") in added
    assert Counter(field for field, _ in added) == {"brand": 1, "name": 2}
    assert sorted(added.values()) == [len(known) + 1, len(known) + 2, len(known) + 3]


def test_targets_are_what_users_did_after_the_cut(warehouse: Warehouse) -> None:
    index = {row[c.ITEM_ID]: row[c.ITEM_IDX] for row in rows_of(warehouse.whole.context, schemas.ITEM_INDEX)}
    expected: dict[str, set[int]] = {}
    for row in _log():
        if _moment(row) >= warehouse.cut:
            expected.setdefault(row["user"], set()).add(index[row["item"]])
    found = {row[c.USER_ID]: row[c.TARGETS] for row in rows_of(warehouse.whole.context, schemas.EVALUATION_TARGETS)}
    assert found == {user: sorted(items) for user, items in expected.items()}
    assert len(found) > 10


def test_snapshots_are_the_three_cuts(warehouse: Warehouse) -> None:
    found = {row[c.SNAPSHOT]: row[c.AS_OF] for row in rows_of(warehouse.whole.context, schemas.SNAPSHOTS)}
    assert found == {
        "release": warehouse.cut + dt.timedelta(days=HOLDOUT),
        "evaluation": warehouse.cut,
        "validation": warehouse.cut - dt.timedelta(days=VALIDATION),
    }


def test_texts_become_runs_of_words_and_stay_whole_in_the_catalogue(warehouse: Warehouse) -> None:
    context, tables = warehouse.whole.context, warehouse.whole.tables
    names = {row["id"]: row["name"] for row in _catalogue()}
    for row in rows_of(context, schemas.ITEMS):
        assert row[c.CATEGORIES].get("name", [""]) == [names[row[c.ITEM_ID]]]
    codes = {row[c.CODE] for row in tables[schemas.CATEGORY_INDEX.name] if row[c.FIELD] == "name"}
    # late, early, thing, size, 0, 1, 2, late thing, early thing, thing size, size 0, size 1, size 2
    assert len(codes) == 13
    for row in tables[schemas.ITEM_FEATURES.name]:
        _, of_name = row[c.CATEGORIES]
        assert of_name == [0] if names[row[c.ITEM_ID]] == "" else len(codes.intersection(of_name)) == 7


def test_vectors_become_directions_and_stay_as_given_in_the_catalogue(warehouse: Warehouse) -> None:
    for row in rows_of(warehouse.whole.context, schemas.ITEMS):
        n = int(row[c.ITEM_ID][1:])
        assert row[c.VECTORS] == ({} if n % 4 == 0 else {"look": [3.0 * n, -4.0 * n]})
    for row in warehouse.whole.tables[schemas.ITEM_FEATURES.name]:
        missing = int(row[c.ITEM_ID][1:]) % 4 == 0
        assert row[c.VECTORS] == pytest.approx([0.0, 0.0] if missing else [0.6, -0.8])


def test_items_that_begin_after_a_cut_are_not_eligible_at_it(warehouse: Warehouse) -> None:
    def eligible(spec: TableSpec) -> set[str]:
        return {row[c.ITEM_ID] for row in rows_of(warehouse.whole.context, spec) if row[c.ELIGIBLE]}

    early = {f"i{n}" for n in range(15)}
    assert eligible(schemas.EVALUATION_ITEM_FEATURES) == early
    assert eligible(schemas.ITEM_FEATURES) == early | {f"i{n}" for n in range(15, 20)}


def test_a_catalogue_is_known_from_the_latest_event_before_its_delivery(warehouse: Warehouse) -> None:
    rows = rows_of(warehouse.whole.context, schemas.ITEM_HISTORY)
    last = max(map(_moment, _log()))
    assert {row[c.ITEM_ID]: row[c.KNOWN_FROM] for row in rows} == {
        f"i{n}": last if n >= N_EARLY else None for n in range(N_ITEMS)
    }
    assert {row[c.RUN_ID] for row in rows if row[c.KNOWN_FROM] is None} == {"run-1"}


def test_fills_of_every_run_are_kept(warehouse: Warehouse) -> None:
    found = rows_of(warehouse.whole.context, schemas.IMPUTATIONS)
    rows = {(row[c.RUN_ID], row[c.TABLE_NAME], row[c.COLUMN_NAME]): row for row in found}
    assert len(rows) == len(found) == 10
    events = rows_of(warehouse.whole.context, schemas.EVENTS)
    for name in (c.PRICE, c.QUANTITY, c.WEIGHT):
        row = rows["run-2", "events", name]
        filled = [one for one in events if name in one[c.IMPUTED]]
        assert row[c.ROWS] == len(filled)
        assert {one[name] for one in filled} == {float(row[c.VALUE])}
    sizes = [float(row["size"]) for row in _catalogue() if row["size"]]
    assert float(rows["run-2", "items", "size"][c.VALUE]) == pytest.approx(np.mean(sizes))
    assert rows["run-2", "items", "size"][c.ROWS] == N_ITEMS - len(sizes)


def test_drift_is_measured_against_the_run_before(warehouse: Warehouse) -> None:
    assert warehouse.past.built.figures == {}
    before, after = (
        {(row[c.TABLE_NAME], row[c.COLUMN_NAME]): row for row in run.tables[schemas.NORMALIZATION.name]}
        for run in (warehouse.past, warehouse.whole)
    )
    figures = warehouse.whole.built.figures
    assert len(figures) == 2 * len(before) == 8
    for (table, column), old in before.items():
        new = after[table, column]
        moved = (new[c.CENTER] - old[c.CENTER]) / old[c.SCALE]
        assert figures[f"drift:{table}.{column}"] == pytest.approx(moved)
        assert figures[f"drift_scale:{table}.{column}"] == pytest.approx(new[c.SCALE] / old[c.SCALE])
    assert figures["drift:events.price"] > 1
    # A retry finds what it has written itself, and looks behind it.
    assert normalization_drift(warehouse.whole.context.tables, "run-2") == pytest.approx(figures)


def test_a_log_shorter_than_the_holdout_is_refused(warehouse: Warehouse) -> None:
    early = START.replace(tzinfo=dt.UTC) + dt.timedelta(days=HOLDOUT + VALIDATION - 1)
    context = warehouse.whole.context
    context = make_context(context.spark, context.config, version=9, as_of=early)
    versions = {spec.name: context.tables.version(spec) for spec in schemas.ALL.values()}
    with pytest.raises(InputContractError, match="2024-01-01"):
        build_features(context)
    with pytest.raises(InputContractError, match="nothing before --as-of"):
        build_features(make_context(context.spark, context.config, as_of=dt.datetime(2023, 1, 1, tzinfo=dt.UTC)))
    assert {spec.name: context.tables.version(spec) for spec in schemas.ALL.values()} == versions
