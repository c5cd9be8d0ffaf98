"""Users' pasts, their lists and what is counted over them, against plain Python."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.config.inputs import Missing
from recbatch.config.sections import NeighboursSection
from recbatch.features import counting, ordering, sorting
from recbatch.features.amounts import fit_amounts, mean_prices
from recbatch.features.counts import Counts
from recbatch.features.cuts import UNIT, Cuts, Decay
from recbatch.features.pasts import TYPES, Part, Pasts, text_hashes

N_ITEMS, DAY = 6, 86_400
HASHES = text_hashes(pa.array([f"item {n}" for n in range(N_ITEMS)]))
CUTS = Cuts(10 * DAY + 5, 20 * DAY, 30 * DAY + 7)

# Few users, moments and values, so that all of them meet.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "ä", "user 3"]),
        st.integers(0, N_ITEMS - 1),
        st.integers(0, 1),
        st.sampled_from([0, 5, DAY, 10 * DAY + 4, 10 * DAY + 5, 19 * DAY, 20 * DAY, 25 * DAY, 30 * DAY + 6]),
        st.sampled_from([float("nan"), -1.5, 0.0, 0.1, 3.25, 1e9]),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=70,
)
Event = tuple[str, int, int, int, float, float]


def _part(events: list[Event]) -> Part:
    columns = {
        name: np.array([event[at] for event in events], kind) for at, (name, kind) in enumerate(TYPES.items(), start=1)
    }
    ids = pa.array([event[0] for event in events], pa.string())
    buckets = np.array([len(event[0]) for event in events], np.int32)
    return Part(ids, buckets, np.ones(len(events), np.int64), columns)


def _pasts(events: list[Event]) -> Pasts:
    return Pasts.combine([], _part(events), HASHES)


def _rows(pasts: Pasts) -> dict[str, list[tuple[Any, ...]]]:
    flat = list(zip(*(column.tolist() for column in pasts.columns.values()), strict=True))
    users = pasts.user_ids.to_pylist()
    return {user: flat[pasts.offsets[n] : pasts.offsets[n + 1]] for n, user in enumerate(users)}


@given(events=EVENTS)
@settings(deadline=None)  # the first call compiles
def test_every_user_has_the_own_events_in_the_order_of_time(events: list[Event]) -> None:
    found = _rows(_pasts(events))
    assert found.keys() == {event[0] for event in events}
    for user, past in found.items():
        mine = [event[1:] for event in events if event[0] == user]
        assert Counter(map(repr, past)) == Counter(
            repr((*event[:3], *map(float, np.float32(event[3:])))) for event in mine
        )
        assert [row[2] for row in past] == sorted(row[2] for row in past)


@given(events=EVENTS, data=st.data())
@settings(deadline=None)  # the first call compiles
def test_pasts_do_not_depend_on_how_the_events_came(events: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(events))
    split = data.draw(st.integers(0, len(events)))
    whole, parts = _pasts(events), _pasts(shuffled[:split])
    stops = parts.offsets[1:]
    lists = parts.lists(parts.offsets[:-1], stops)
    old = [
        Part.of_lists(pa.table({"user_id": parts.user_ids} | lists).filter(pa.array(parts.buckets == bucket)), bucket)
        for bucket in np.unique(parts.buckets).tolist()
    ]
    again = Pasts.combine(old, _part(shuffled[split:]), HASHES)
    assert again.user_ids == whole.user_ids
    assert again.buckets.tolist() == whole.buckets.tolist()
    for name in TYPES:
        assert again.columns[name].tobytes() == whole.columns[name].tobytes(), name


def test_long_and_short_pasts_are_ordered_alike() -> None:
    random = np.random.default_rng(0)
    sizes = np.array([3, 48, 49, 500, 0, 1])
    offsets = np.concatenate([[0], sizes.cumsum()])
    time, tie = random.integers(0, 20, offsets[-1]), random.integers(0, 5, offsets[-1]).astype(np.uint64)
    found = ordering.time_order(offsets, np.ones(len(sizes), np.bool_), time, tie)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        expected = sorted(range(start, stop), key=lambda at: (time[at], tie[at]))
        keys = [(time[at], tie[at]) for at in found[start:stop].tolist()]
        assert keys == [(time[at], tie[at]) for at in expected]
        assert sorted(found[start:stop].tolist()) == list(range(start, stop))


@given(
    keys=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), max_size=200),
    numbers=st.lists(st.integers(-9, 9), min_size=1, max_size=200),
    data=st.data(),
)
@settings(deadline=None)
def test_sorting_is_that_of_python(keys: list[tuple[int, int]], numbers: list[int], data: st.DataObject) -> None:
    major, minor = (np.array([key[n] for key in keys], kind) for n, kind in enumerate((np.float64, np.uint64)))
    order = np.arange(len(keys))
    sorting.sort_places(order, major, minor)
    assert order.tolist() == sorted(range(len(keys)), key=lambda at: keys[at])
    values = np.array(numbers, np.int32)
    n = data.draw(st.integers(1, len(numbers)))
    assert sorting.nth_largest(values, n) == sorted(numbers)[-n]
    sorting.sort_numbers(values)
    assert values.tolist() == sorted(numbers)


def test_the_order_within_a_second_is_that_of_no_id_and_not_the_same_for_all_users() -> None:
    users = [f"user {n}" for n in range(40)]
    found = _rows(_pasts([(user, item, 0, 7, 1.0, 1.0) for user in users for item in (1, 2, 3)]))
    orders = Counter(tuple(row[0] for row in past) for past in found.values())
    assert len(orders) == 6
    assert max(orders.values()) < 20


@given(events=EVENTS, moment=st.integers(-1, 31 * DAY))
@settings(deadline=None)  # the first call compiles
def test_what_comes_before_a_moment_and_distinct_items(events: list[Event], moment: int) -> None:
    pasts = _pasts(events)
    stops = ordering.stops_before(pasts.offsets, pasts.columns["event_time"], moment)
    stamp = np.full(N_ITEMS, -1, np.int64)
    items, bounds = ordering.distinct_items(pasts.offsets[:-1], stops, pasts.columns["item_idx"], stamp, 0)
    for n, past in enumerate(_rows(pasts).values()):
        before = [row for row in past if row[2] < moment]
        assert stops[n] - pasts.offsets[n] == len(before)
        assert items[bounds[n] : bounds[n + 1]].tolist() == sorted({row[0] for row in before})


def _counted(pasts: Pasts, recent_days: int) -> tuple[Counts, np.ndarray[Any, Any]]:
    counts, cuts = Counts.zero(N_ITEMS), CUTS.seconds()
    first = counting.count_users(
        pasts.offsets,
        pasts.columns["item_idx"],
        pasts.columns["event_time"],
        cuts,
        cuts - recent_days * DAY,
        counts.of_items("ever"),
        counts.of_items("recent"),
        np.full((4, N_ITEMS), -1, np.int64),
        0,
    )
    return counts, first


@given(events=EVENTS, recent_days=st.sampled_from([1, 9, 100]))
@settings(deadline=None)  # the first call compiles
def test_popularity_counts_users_before_each_cut(events: list[Event], recent_days: int) -> None:
    pasts = _pasts(events)
    counts, first = _counted(pasts, recent_days)
    ever, recent = np.zeros((3, N_ITEMS), np.int64), np.zeros((3, N_ITEMS), np.int64)
    firsts = []
    for past in _rows(pasts).values():
        firsts += [row[0] not in [earlier[0] for earlier in past[:at]] for at, row in enumerate(past)]
        for cut, moment in enumerate(CUTS.seconds().tolist()):
            for item in {row[0] for row in past if row[2] < moment}:
                ever[cut, item] += 1
            for item in {row[0] for row in past if moment - recent_days * DAY <= row[2] < moment}:
                recent[cut, item] += 1
    assert first.tolist() == firsts
    assert counts.of_items("ever").tolist() == ever.tolist()
    assert counts.of_items("recent").tolist() == recent.tolist()


def _brute_force(pasts: Pasts, section: NeighboursSection, cut: int) -> dict[int, dict[int, float]]:
    """Weight by target by source, pair by pair from every user's past before the cut."""
    moment = int(CUTS.seconds()[cut])
    sums: dict[tuple[int, int], float] = defaultdict(float)
    for past in _rows(pasts).values():
        known = [row for row in past if row[2] < moment]
        for at, row in enumerate(known):
            if row[0] in [earlier[0] for earlier in known[:at]]:
                continue
            age = (moment - 1) // DAY - row[2] // DAY
            for earlier in known[max(0, at - section.window) : at]:
                if earlier[0] != row[0]:
                    sums[earlier[0], row[0]] += 2.0 ** (-age / section.half_life_days)
    of_source, of_target = Counter[int](), Counter[int]()
    for (source, target), value in sums.items():
        of_source[source] += value  # type: ignore[assignment]
        of_target[target] += value  # type: ignore[assignment]
    weights: dict[int, dict[int, float]] = defaultdict(dict)
    for (source, target), value in sums.items():
        damping = of_source[source] ** section.source_power * of_target[target] ** section.target_power
        weights[source][target] = value / damping
    return weights


@pytest.mark.parametrize(
    ("window", "half_life", "source_power", "target_power", "size"),
    [(3, 10.0, 0.0, 0.0, 100), (10, 60.0, 0.5, 0.2, 2), (1, 2.0, 1.0, 0.0, 1), (1000, 1e9, 0.5, 0.5, 100)],
)
@given(events=EVENTS)
@settings(max_examples=25, deadline=None)
def test_neighbours_are_those_of_brute_force_at_every_cut(
    window: int, half_life: float, source_power: float, target_power: float, size: int, events: list[Event]
) -> None:
    section = NeighboursSection(
        window=window, half_life_days=half_life, source_power=source_power, target_power=target_power, per_item=size
    )
    pasts, width = _pasts(events), 4
    counts, first = _counted(pasts, 1)
    item, decay = pasts.columns["item_idx"], Decay.create(CUTS, half_life, 0)
    slots = counting.slots_of(pasts.columns["event_time"], CUTS.seconds(), decay.first_day)
    sizes, totals = np.zeros(2, np.int64), counts.of_items("target")
    counting.count_pairs(pasts.offsets, item, first, slots, decay.weights, window, width, totals, sizes)
    bounds = np.concatenate([[0], sizes.cumsum()])
    pairs = counting.write_pairs(pasts.offsets, item, first, slots, window, width, bounds)
    for cut in range(3):
        expected, found = _brute_force(pasts, section, cut), {}
        for part in range(2):
            source, target, slot = (column[bounds[part] : bounds[part + 1]] for column in pairs)
            assert (source < width).all()
            begins = np.concatenate([[0], np.bincount(source, minlength=width).cumsum()])
            targets, their_slots = np.empty_like(target), np.empty_like(slot)
            counting.group_pairs(source, target, slot, begins[:-1].copy(), targets, their_slots)
            damping = (totals[cut] / UNIT) ** target_power
            weights = decay.weights[cut]
            chosen = counting.neighbours_of_all(
                begins, targets, their_slots, weights, damping, float(UNIT), source_power, HASHES, size
            )
            ends = chosen[0].cumsum()
            for n, stop in enumerate(ends.tolist()):
                mine = slice(stop - chosen[0][n], stop)
                found[n + part * width] = dict(zip(chosen[1][mine].tolist(), chosen[2][mine].tolist(), strict=True))
        assert {source for source, one in found.items() if one} == expected.keys()
        for source, weights in expected.items():
            best = sorted(weights.values(), reverse=True)[:size]
            np.testing.assert_allclose(list(found[source].values()), best, rtol=1e-6)
            np.testing.assert_allclose(
                list(found[source].values()), [weights[target] for target in found[source]], rtol=1e-6
            )


@pytest.mark.parametrize("method", ["zscore", "minmax", "robust", "log1p", "none"])
@pytest.mark.parametrize("strategy", ["mean", "median", "mode"])
@given(events=EVENTS, split=st.integers(0, 70))
@settings(max_examples=15, deadline=None)
def test_parameters_are_those_of_the_values_before_each_cut(
    method: Any, strategy: Any, events: list[Event], split: int
) -> None:
    missing = {"price": Missing(strategy=strategy)}
    counts = Counts.zero(N_ITEMS)
    for some in (events[:split], events[split:]):
        part = Counts.zero(N_ITEMS)
        part.add_amounts(_part(some).columns, CUTS, ("price",) if method == "log1p" else (), ("price",))
        counts.add(part.to_bytes())
    for cut, moment in enumerate(CUTS.seconds().tolist()):
        values = np.array([event[4] for event in events if event[3] < moment and event[4] == event[4]], np.float32)
        found = fit_amounts(counts, cut, {"price": method}, missing)["price"]
        center, scale, fill = _expected(method, strategy, values.astype(np.float64))
        np.testing.assert_allclose([found.center, found.scale], [center, scale], rtol=1e-6, atol=1e-9)
        assert found.fill == (None if fill is None else pytest.approx(fill, rel=1e-12))
        items, prices = mean_prices(counts, cut)
        priced: dict[int, list[float]] = defaultdict(list)
        for _, item, _, time, price, _ in events:
            if time < moment and price == price:
                priced[item].append(float(np.float32(price)))
        assert items.tolist() == sorted(priced)
        np.testing.assert_allclose(prices, [np.mean(priced[item]) for item in items.tolist()], rtol=1e-6, atol=1e-7)


def _expected(method: str, strategy: str, values: np.ndarray[Any, Any]) -> tuple[float, float, float | None]:
    if not len(values):
        return 0.0, 1.0, None
    mode = max(groupby(sorted(values.tolist())), key=lambda one: (len(list(one[1])), -one[0]))[0]
    fill = {"mean": values.mean(), "median": np.median(values), "mode": mode}[strategy]
    lifted = np.sign(values) * np.log1p(np.abs(values)) if method == "log1p" else values
    low, middle, high = np.percentile(values, [25, 50, 75])
    center, scale = {
        "zscore": (values.mean(), values.std()),
        "log1p": (lifted.mean(), lifted.std()),
        "minmax": (values.min(), np.ptp(values)),
        "robust": (middle, high - low),
        "none": (0.0, 1.0),
    }[method]
    return float(center), float(scale) or 1.0, float(fill)


@given(
    as_of=st.datetimes(timezones=st.just(dt.UTC)).filter(lambda moment: moment.year > 1971),
    holdout=st.integers(1, 60),
    alignment=st.integers(0, 30),
)
@settings(deadline=None)  # the first call compiles
def test_cuts_are_at_least_so_far_apart_and_on_the_grid(as_of: Any, holdout: int, alignment: int) -> None:
    cuts = Cuts.before(as_of, holdout, 28, alignment)
    assert 0 <= cuts.release - as_of.timestamp() < 1
    for later, earlier, days in ((cuts.release, cuts.evaluation, holdout), (cuts.evaluation, cuts.validation, 28)):
        slack = later - earlier - days * DAY
        assert 0 <= slack < alignment * DAY if alignment else slack == 0
        assert not alignment or earlier % (alignment * DAY) == 0
