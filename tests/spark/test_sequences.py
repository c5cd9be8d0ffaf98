"""Sequences, targets, popularity and co-occurrence against plain Python, on random events and any partitioning."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recbatch.config.sections import NeighboursSection
from recbatch.features.cooccurrence import item_neighbours
from recbatch.features.popularity import item_popularity
from recbatch.features.user_sequences import behaviours, sequences, targets
from recbatch.tables import columns as c
from recbatch.tables.schemas import ITEM_NEIGHBOURS, ITEM_POPULARITY, USER_SEQUENCES
from recbatch.tables.store import in_contract
from recbatch.transforms.parameters import Parameters

N_ITEMS, BUCKETS, TYPES = 15, 4, ["purchase", "view"]
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
AS_OF = START + dt.timedelta(days=50)
PARAMETERS = {c.PRICE: Parameters("zscore", 2.0, 4.0), c.QUANTITY: Parameters("minmax", 1.0, 8.0)}
EVENT_SCHEMA = (
    "user_id string, item_id string, event_type string, event_time timestamp, "
    "price double, quantity double, basket_id string, query string"
)


def _events() -> list[tuple[Any, ...]]:
    random = np.random.default_rng(11)
    events = []
    for n in range(400):
        # Few distinct moments, so that many events of a user share one.
        moment = START + dt.timedelta(days=int(random.integers(0, 50)) // 4 * 4)
        events.append(
            (
                f"user {int(random.zipf(1.3)) % 12}",
                f"item {int(random.integers(0, N_ITEMS))}",
                TYPES[int(random.integers(0, 2))],
                moment,
                None if random.random() < 0.2 else float(random.integers(1, 90)) / 4,
                float(random.integers(1, 9)),
                None if random.random() < 0.3 else f"basket {n}",
                None,
            )
        )
    key = {
        (user, item, kind, moment, basket): row for row in events for user, item, kind, moment, _, _, basket, _ in [row]
    }
    return list(key.values())


EVENTS = _events()
INDEX = [(f"item {n}", (n * 7) % N_ITEMS) for n in range(N_ITEMS)]


def _behaviours(spark: SparkSession, events: list[tuple[Any, ...]], partitions: int) -> DataFrame:
    frame = spark.createDataFrame(events, EVENT_SCHEMA).repartition(partitions)
    index = spark.createDataFrame(INDEX, "item_id string, item_idx int")
    return behaviours(frame, index, TYPES, BUCKETS)


@pytest.fixture(scope="module", params=[1, 5])
def rows(spark: SparkSession, request: pytest.FixtureRequest) -> DataFrame:
    events = EVENTS if request.param == 1 else EVENTS[::-1]
    return _behaviours(spark, events, request.param).localCheckpoint()


def _histories(rows: DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The behaviours of every user in time order; of one second in the order of the tie."""
    histories = defaultdict(list)
    for row in rows.collect():
        histories[row[c.USER_ID]].append(row.asDict())
    return {user: sorted(own, key=lambda row: (row[c.EVENT_TIME], row["tie"])) for user, own in histories.items()}


def test_behaviours_are_the_events_in_internal_form(spark: SparkSession, rows: DataFrame) -> None:
    index = dict(INDEX)
    expected = sorted(
        (
            user,
            index[item],
            TYPES.index(kind),
            int(moment.timestamp()),
            -1.0 if price is None else price,
            quantity,
        )
        for user, item, kind, moment, price, quantity, _, _ in EVENTS
    )
    names = (c.USER_ID, c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
    found = [tuple(-1.0 if row[name] is None else row[name] for name in names) for row in rows.collect()]
    assert sorted(found) == expected
    buckets = {row[c.USER_ID]: row[c.USER_BUCKET] for row in rows.collect()}
    assert all(0 <= bucket < BUCKETS for bucket in buckets.values())
    assert len(set(buckets.values())) > 1


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_sequences_are_the_last_behaviours_of_every_user(rows: DataFrame, length: int) -> None:
    found = {row[c.USER_ID]: row for row in in_contract(USER_SEQUENCES, sequences(rows, PARAMETERS, length)).collect()}
    histories = _histories(rows)
    assert found.keys() == histories.keys()
    assert max(map(len, histories.values())) > 7
    for user, history in histories.items():
        recent = history[-length:]
        for name in (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME):
            assert found[user][name] == [row[name] for row in recent], (user, name)
        prices = [0.0 if row[c.PRICE] is None else (row[c.PRICE] - 2.0) / 4.0 for row in recent]
        np.testing.assert_array_equal(np.float32(found[user][c.PRICE]), np.float32(prices))
        quantities = [(row[c.QUANTITY] - 1.0) / 8.0 for row in recent]
        np.testing.assert_array_equal(np.float32(found[user][c.QUANTITY]), np.float32(quantities))
        assert found[user][c.SEEN] == sorted({row[c.ITEM_IDX] for row in history})
        assert found[user][c.USER_BUCKET] == history[0][c.USER_BUCKET]


def test_the_order_within_a_second_is_not_that_of_the_input_nor_of_the_ids(spark: SparkSession) -> None:
    orders = []
    for events, partitions in ((EVENTS, 1), (EVENTS[::-1], 3)):
        found = sequences(_behaviours(spark, events, partitions), PARAMETERS, 1000).collect()
        orders.append({row[c.USER_ID]: row[c.ITEM_IDX] for row in found})
    assert orders[0] == orders[1]
    histories = _histories(_behaviours(spark, EVENTS, 1))
    tied = [
        (one[c.ITEM_IDX], other[c.ITEM_IDX])
        for history in histories.values()
        for one, other in pairwise(history)
        if one[c.EVENT_TIME] == other[c.EVENT_TIME]
    ]
    rising = sum(one < other for one, other in tied)
    assert 0 < rising < len(tied)


def test_targets_are_the_distinct_items_of_a_user(rows: DataFrame) -> None:
    found = {row[c.USER_ID]: row[c.TARGETS] for row in targets(rows).collect()}
    histories = _histories(rows)
    assert found == {user: sorted({row[c.ITEM_IDX] for row in history}) for user, history in histories.items()}


@pytest.mark.parametrize("recent_days", [1, 14, 1000])
def test_popularity_counts_users(rows: DataFrame, recent_days: int) -> None:
    ever, recent = defaultdict(set), defaultdict(set)
    index = dict(INDEX)
    for user, item, _, moment, *_ in EVENTS:
        ever[index[item]].add(user)
        if moment >= AS_OF - dt.timedelta(days=recent_days):
            recent[index[item]].add(user)
    found = in_contract(ITEM_POPULARITY, item_popularity(rows, AS_OF, recent_days)).collect()
    assert {row[c.ITEM_IDX]: (row[c.POPULARITY], row[c.RECENT_POPULARITY]) for row in found} == {
        item: (len(users), len(recent[item])) for item, users in ever.items()
    }


def _weights(rows: DataFrame, section: NeighboursSection, as_of: dt.datetime) -> dict[int, dict[int, float]]:
    """Weight by target by source, pair by pair from every user's history before `as_of`."""
    counts: dict[tuple[int, int], float] = defaultdict(float)
    for history in _histories(rows).values():
        met: set[int] = set()
        past = [row for row in history if row[c.EVENT_TIME] < as_of.timestamp()]
        for at, behaviour in enumerate(past):
            target = behaviour[c.ITEM_IDX]
            age = (as_of.timestamp() - behaviour[c.EVENT_TIME]) / 86_400
            for earlier in past[max(0, at - section.window) : at] if target not in met else ():
                if earlier[c.ITEM_IDX] != target:
                    counts[earlier[c.ITEM_IDX], target] += 2.0 ** (-age / section.half_life_days)
            met.add(target)
    of_source: dict[int, float] = defaultdict(float)
    of_target: dict[int, float] = defaultdict(float)
    for (source, target), count in counts.items():
        of_source[source] += count
        of_target[target] += count
    weights: dict[int, dict[int, float]] = defaultdict(dict)
    for (source, target), count in counts.items():
        damping = of_source[source] ** section.source_power * of_target[target] ** section.target_power
        weights[source][target] = count / damping
    return weights


@pytest.mark.parametrize(
    ("window", "half_life_days", "source_power", "target_power", "per_item"),
    [(3, 10.0, 0.0, 0.0, 100), (10, 60.0, 0.5, 0.2, 4), (1, 5.0, 1.0, 0.0, 2), (1000, 1e9, 0.5, 0.5, 100)],
)
def test_neighbours_are_those_of_brute_force_at_every_cut(
    rows: DataFrame, window: int, half_life_days: float, source_power: float, target_power: float, per_item: int
) -> None:
    section = NeighboursSection(
        window=window,
        half_life_days=half_life_days,
        source_power=source_power,
        target_power=target_power,
        per_item=per_item,
    )
    cuts = {"release": AS_OF, "validation": START + dt.timedelta(days=20)}
    tables = item_neighbours(rows, section, cuts)
    assert tables.keys() == cuts.keys()
    sizes = {}
    for name, as_of in cuts.items():
        weights = _weights(rows, section, as_of)
        found = {row[c.ITEM_IDX]: row for row in in_contract(ITEM_NEIGHBOURS, tables[name]).collect()}
        assert found.keys() == weights.keys()
        sizes[name] = sum(map(len, weights.values()))
        for source, row in found.items():
            expected = weights[source]
            assert len(set(row[c.NEIGHBOURS])) == len(row[c.NEIGHBOURS]) == min(per_item, len(expected))
            np.testing.assert_allclose(row[c.WEIGHTS], [expected[n] for n in row[c.NEIGHBOURS]], rtol=1e-6)
            np.testing.assert_allclose(row[c.WEIGHTS], sorted(expected.values(), reverse=True)[:per_item], rtol=1e-6)
    assert 0 < sizes["validation"] < sizes["release"]
