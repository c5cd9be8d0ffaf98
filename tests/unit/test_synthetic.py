"""The synthetic shop: it is a shop, it is the same in any number of files, and its truth is what a plain loop finds."""

from __future__ import annotations

import csv
import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.cli import main
from recbatch.context import Progress
from recbatch.errors import UsageError
from recbatch.synthetic import assortment, calendar, columns, vocabulary
from recbatch.synthetic.behaviour import CART, LANGUAGES, PHRASES, PURCHASE, SEARCH, VIEW, Log, behaviour
from recbatch.synthetic.catalogue import plan_items
from recbatch.synthetic.delivery import generate
from recbatch.synthetic.numbers import scatter
from recbatch.synthetic.plan import MAIN, MORE, plan_main, plan_more
from recbatch.synthetic.shop import Shop
from recbatch.synthetic.tasks import ITEMS, TRUTH, Factory
from recbatch.synthetic.truth import events_truth, expected_rows, items_truth

SMALL = Shop(events=3_000, users=60, items=300, days=10, extra_share=0.1)
LARGE = Shop(events=200_000, users=4_000, items=2_000)
QUIET = Progress(lambda _: None, lambda *_: None)
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def log() -> Log:
    return behaviour(LARGE.world(LARGE.events), np.arange(LARGE.users))


def _day(log: Log) -> np.ndarray[Any, np.dtype[np.int64]]:
    return (log.time // 1000 - calendar.FIRST_SECOND) // calendar.DAY


def test_events_are_exactly_as_many_as_asked_for(log: Log) -> None:
    assert np.array_equal(np.sort(log.number), np.arange(LARGE.events))
    of_users = np.bincount(log.user, minlength=LARGE.users)
    assert of_users.sum() == LARGE.events
    # Some have hardly any, and one percent has several times its share.
    assert np.mean(of_users < 10) > 0.05
    assert np.sort(of_users)[-LARGE.users // 100 :].sum() > 0.03 * LARGE.events


def test_popularity_follows_a_power_law(log: Log) -> None:
    counts = np.sort(np.bincount(log.item))[::-1]
    ranks = np.arange(10, 500)
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks]), 1)[0]
    assert -1.3 < slope < -0.6


def test_every_kind_of_event_is_there(log: Log) -> None:
    shares = np.bincount(log.kind) / len(log.kind)
    assert shares[VIEW] > shares[CART] > shares[PURCHASE] > 0.05
    assert shares[SEARCH] > 0.02
    assert np.array_equal(log.query >= 0, log.kind == SEARCH)
    assert np.array_equal(log.quantity > 0, log.kind >= CART)
    languages = np.unique(log.query[log.query >= 0] // PHRASES % LANGUAGES)
    assert len(languages) == LANGUAGES
    assert len(vocabulary.queries("plain")) == assortment.CATEGORIES * LANGUAGES * PHRASES


def test_an_item_is_sold_between_launch_and_withdrawal(log: Log) -> None:
    launched = {int(item): assortment.launch_day(np.uint64(7), item, LARGE.days) for item in np.unique(log.item)}
    withdrawn = {item: assortment.withdrawal_day(np.uint64(7), item, LARGE.days) for item in launched}
    assert any(day > 0 for day in launched.values())
    assert any(day < LARGE.days for day in withdrawn.values())
    first = (log.time - log.time % 86_400_000) // 86_400_000  # purchases past midnight are of the day before
    visit_day = np.array([int(first[log.visit == visit].min()) for visit in np.unique(log.visit)[:2000]])
    for visit, day in zip(np.unique(log.visit)[:2000], visit_day, strict=True):
        for item in np.unique(log.item[log.visit == visit]):
            on = day - calendar.FIRST_SECOND // calendar.DAY
            assert launched[int(item)] <= on < withdrawn[int(item)]


def test_prices_change_and_promotions_come_and_go() -> None:
    seed, item = np.uint64(7), 300
    prices = [assortment.price(seed, item, day) for day in range(365)]
    promoted = [assortment.promoted(seed, item, day) for day in range(365)]
    assert len(set(prices)) > 5
    usual = np.mean([price for price, on in zip(prices, promoted, strict=True) if not on])
    every = [assortment.promoted(seed, n, day) for n in range(200) for day in range(0, 365, 7)]
    assert 0.02 < np.mean(every) < 0.1
    on_offer = [
        assortment.price(seed, n, day) / assortment.list_price(seed, n)
        for n in range(200)
        for day in range(0, 365, 7)
        if assortment.promoted(seed, n, day)
    ]
    assert np.mean(on_offer) < 0.85
    assert usual > 0.85 * assortment.list_price(seed, item)


def test_tastes_drift(log: Log) -> None:
    """A user's categories agree more within a month than over half a year."""
    day, category = _day(log), log.item % assortment.CATEGORIES

    def profiles(first: int, last: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        chosen = (first <= day) & (day < last)
        table = np.zeros((LARGE.users, assortment.CATEGORIES))
        np.add.at(table, (log.user[chosen], category[chosen]), 1.0)
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        return table / np.where(norms == 0, 1, norms)

    near = (profiles(0, 30) * profiles(30, 60)).sum(axis=1)
    far = (profiles(0, 30) * profiles(300, 330)).sum(axis=1)
    active = (profiles(0, 30).any(axis=1)) & profiles(30, 60).any(axis=1) & profiles(300, 330).any(axis=1)
    assert active.sum() > 500
    assert near[active].mean() > 1.2 * far[active].mean()


def test_complements_are_bought_together(log: Log) -> None:
    bought = log.kind == PURCHASE
    baskets: dict[int, set[int]] = defaultdict(set)
    for visit, item in zip(log.visit[bought].tolist(), log.item[bought].tolist(), strict=True):
        assert item not in baskets[visit]
        baskets[visit].add(item)
    pairs = sum(assortment.complement(item, LARGE.items) in basket for basket in baskets.values() for item in basket)
    share = np.bincount(log.item[bought], minlength=LARGE.items) / bought.sum()
    size = bought.sum() / len(baskets)
    partner = np.array([assortment.complement(item, LARGE.items) for item in range(LARGE.items)])
    by_chance = (share * share[partner]).sum() * size * bought.sum()
    assert pairs > 5 * by_chance


def test_seasons_show(log: Log) -> None:
    days = np.bincount(_day(log), minlength=LARGE.days)
    dates = [LARGE.date(n) for n in range(LARGE.days)]
    of = {month: np.mean([n for n, date in zip(days, dates, strict=False) if date.month == month]) for month in (7, 12)}
    assert of[12] > 1.2 * of[7]
    weekdays = [np.mean([n for n, d in zip(days, dates, strict=False) if d.weekday() == w]) for w in (2, 5)]
    assert weekdays[1] > 1.2 * weekdays[0]
    hours = np.bincount(log.time // 3_600_000 % 24, minlength=24)
    assert hours[1:5].sum() == 0


@given(st.lists(st.integers(0, LARGE.users - 1), min_size=1, max_size=20), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_user_is_a_function_of_seed_and_number(users: list[int], seed: int) -> None:
    world = replace(LARGE, seed=seed).world(LARGE.events)
    together = behaviour(world, np.array(users))
    apart = [behaviour(world, np.array([user])) for user in users]
    for column, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert np.array_equal(column, np.concatenate(parts))


@given(st.integers(1, 100_000))
def test_scattered_numbers_are_all_numbers(n: int) -> None:
    assert np.gcd(scatter(n), n) == 1


@given(st.integers(0, 3 * 365 * 24 * 4))
def test_wall_clock_times_are_those_of_the_zone(quarters: int) -> None:
    wall = dt.datetime(2025, 1, 1) + dt.timedelta(minutes=15 * quarters)
    expected = wall.replace(tzinfo=ZoneInfo(calendar.ZONE)).timestamp()
    seconds = int(wall.replace(tzinfo=dt.UTC).timestamp())
    assert calendar.wall_to_utc(np.array([seconds]))[0] == expected


# The files, and what is in them.


def _write(folder: Path, shop: Shop, files: int) -> Factory:
    main = plan_main(shop)
    plans = {MAIN: main} | ({MORE: plan_more(shop, main)} if shop.extra_share else {})
    factory = Factory(shop, plans, plan_items(shop), folder, truth_rows=True)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for work in factory.work(files):
        counted[work.part] += factory.make(work)
    assert dict(counted) == expected_rows(plans, factory.items)
    return factory


def _lines(folder: Path, part: str) -> list[str]:
    files = sorted((folder / part).iterdir())
    return sorted(line for file in files for line in file.read_text().split("\n")[1:-1])


@given(files=st.integers(2, 20), seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_any_number_of_files_holds_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, files: int, seed: int
) -> None:
    shop, one, many = replace(SMALL, seed=seed), tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    _write(one, shop, 1)
    _write(many, shop, files)
    for part in (MAIN, MORE, ITEMS):
        assert _lines(one, part) == _lines(many, part)
    assert len(list((many / MAIN).iterdir())) == files
    for part in (MAIN, MORE):
        truths = [pq.read_table(folder / TRUTH / part).to_pylist() for folder in (one, many)]
        assert sorted(truths[0], key=repr) == sorted(truths[1], key=repr)


def _number(text: str) -> float | None:
    try:
        return float(text) if text not in ("", "NaN") else None
    except ValueError:
        return None


class Judge:
    """Cleaning by a plain loop over the lines of CSV files with times in milliseconds."""

    def __init__(self, shop: Shop, known: set[str]) -> None:
        self.known = known
        self.range = [
            dt.datetime.combine(date, dt.time(), dt.UTC).timestamp() * 1000 for date in (shop.earliest, shop.latest)
        ]

    def reasons(self, row: dict[str, str]) -> set[str]:
        found = {
            f"missing_{name}"
            for name, column in (("user_id", columns.USER), ("item_id", columns.ITEM), ("event_type", columns.TYPE))
            if not row[column]
        }
        found |= {"unknown_event_type"} if row[columns.TYPE] not in ("", *vocabulary.EVENT_TYPES) else set()
        found |= {"unknown_item"} if row[columns.ITEM] and row[columns.ITEM] not in self.known else set()
        price, quantity = _number(row[columns.PRICE]), _number(row[columns.QUANTITY])
        found |= {"invalid_price"} if row[columns.PRICE] and price is None else set()
        found |= {"negative_price"} if price is not None and price < 0 else set()
        found |= {"negative_quantity"} if quantity is not None and quantity < 0 else set()
        found |= {"zero_quantity"} if quantity == 0 else set()
        return found | self._time(row[columns.TIME])

    def _time(self, text: str) -> set[str]:
        if not text or not text.isdigit():
            return {"invalid_event_time" if text else "missing_event_time"}
        low, high = self.range
        if low <= int(text) <= high:
            return set()
        return {"event_time_wrong_unit" if low <= int(text) * 1000 <= high else "event_time_out_of_range"}


def _judged(lines: Iterable[str], judge: Judge, limits: tuple[int, int]) -> tuple[Counter[str], Counter[str], set[Row]]:
    outcomes: Counter[str] = Counter()
    codes: list[tuple[str, set[str]]] = []
    same: dict[Row, list[Row]] = defaultdict(list)
    for line in lines:
        values = next(csv.reader([line]))
        if len(values) != len(columns.RAW):
            codes.append(("", {"malformed_record"}))
            continue
        row = dict(zip(columns.RAW, values, strict=True))
        reasons = judge.reasons(row)
        codes.append((row[columns.USER], reasons))
        if not reasons:
            key = tuple(row[name] for name in (columns.USER, columns.ITEM, columns.TYPE, columns.TIME, columns.VISIT))
            content = (_number(row[columns.QUANTITY]) or 1e9, _number(row[columns.PRICE]) or 1e9, row[columns.QUERY])
            same[key].append(content)
    cells = Counter((user, span, int(time) // span) for user, _, _, time, _ in same for span in (86_400_000, 60_000))
    exceeded = {86_400_000: ("bot_volume", limits[0]), 60_000: ("bot_rate", limits[1])}
    bots = {(user, exceeded[span][0]) for (user, span, _), n in cells.items() if n > exceeded[span][1]}
    names = {user for user, _ in bots}
    reasons_found = Counter(code for user, found in codes for code in found | {b for u, b in bots if u == user})
    outcomes["rejected"] = sum(bool(found) or user in names for user, found in codes)
    accepted: set[Row] = set()
    for key, contents in same.items():
        if key[0] not in names:
            outcomes["accepted"] += 1
            outcomes["key_duplicate"] += len(set(contents)) - 1
            outcomes["exact_duplicate"] += len(contents) - len(set(contents))
            accepted.add((*key, *min(contents)))
    return outcomes, reasons_found, accepted


def _truth_rows(folder: Path, parts: Iterable[str]) -> set[Row]:
    """The rows of the truth as `_judged` has them."""
    types = {clean: raw for raw, clean in vocabulary.EVENT_TYPES.items()}
    found = set()
    for row in (row for part in parts for row in pq.read_table(folder / TRUTH / part).to_pylist()):
        time = round(row["event_time"].timestamp() * 1000)
        key = (row["user_id"], row["item_id"], types[row["event_type"]], f"{time}", row["basket_id"])
        quantity = row["quantity"] if types[row["event_type"]] in ("basket", "order") else 1e9
        found.add((*key, quantity, row["price"] or 1e9, row["query"] or ""))
    return found


@given(
    events=st.integers(2_000, 8_000),
    density=st.integers(5, 200),
    days=st.integers(10, 60),
    faults=st.sampled_from([0.0, 0.005, 0.02, 0.1]),
    extra_share=st.sampled_from([0.01, 0.3]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=20, deadline=None)
def test_the_truth_is_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory,
    events: int,
    density: int,
    days: int,
    faults: float,
    extra_share: float,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(events, max(3, events // density), 300, seed, days, faults, extra_share)
    factory = _write(folder, shop, 3)
    known = set(pq.read_table(folder / TRUTH / MAIN)["item_id"].to_pylist()) | {
        line.split(",")[0] for line in _lines(folder, ITEMS) if not line.startswith(("draft", ","))
    }
    judge, limits = Judge(shop, known), factory.plans[MAIN].limits
    truths = {part: events_truth(plan) for part, plan in factory.plans.items()}
    for parts in ([MAIN], [MAIN, MORE]):
        lines = [line for part in parts for line in _lines(folder, part)]
        outcomes, reasons, accepted = _judged(lines, judge, limits)
        expected = sum(
            (Counter({k: v for k, v in truths[part].items() if isinstance(v, int)}) for part in parts), Counter()
        )
        assert len(lines) == expected.pop("read")
        assert +outcomes == +expected
        assert reasons == sum((Counter(truths[part]["reasons"]) for part in parts), Counter())
        assert accepted == _truth_rows(folder, parts)


def test_the_default_faults_are_far_from_the_limit_on_rejected_rows() -> None:
    for events in (2_000, 10_000, 1_000_000, 10_000_000_000):
        shop = Shop(events, max(1, events // 50), 500)
        truth = events_truth(plan_main(shop))
        assert truth["read"] == events
        assert 0 < truth["rejected"] < 0.1 * events


def test_large_logs_have_bots_above_the_default_limits() -> None:
    plan = plan_main(Shop(20_000_000, 400_000, 40_000))
    assert plan.limits == (10_000, 1_000)
    assert plan.groups >= 1


def test_daylight_saving_hours_are_planted_in_text() -> None:
    shop = replace(SMALL, time="text")
    plan = plan_main(shop)
    assert plan.planted["daylight_saving_hour"] > 0
    assert plan.planted["seconds_for_milliseconds"] == 0
    assert len(calendar.clock_changes(0, 365)) == 2


def test_the_catalogue_is_as_its_truth_says(tmp_path: Path) -> None:
    shop = replace(SMALL, items=2_000)
    factory = _write(tmp_path, shop, 1)
    truth = items_truth(factory.items)
    rows = list(csv.reader(_lines(tmp_path, ITEMS)))
    good = [row for row in rows if len(row) == 9 and not row[0].startswith("draft") and row[0]]
    assert len(rows) == truth["read"]
    assert len({row[0] for row in good}) == shop.items
    # A version of an item is a row of its own.
    assert truth["accepted"] == shop.items + truth["planted"]["older_version"]
    originals = {row[0]: row for row in good if row[7] != "2020-01-01"}
    missing = {"brand": 3, "tags": 4, "weight_grams": 6}
    assert truth["missing"] == {
        name: sum(not row[place].strip("|") for row in originals.values()) for name, place in missing.items()
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("events", 10), ("users", 1), ("items", 3), ("days", 2), ("faults", 0.5), ("extra_share", -1.0), ("seed", -1)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is"):
        replace(SMALL, **{option: value})  # type: ignore[arg-type]


def test_an_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["generate", "s3a://bucket/shop", "--events", "3000"])
    assert left.value.code == UsageError.exit_code
    assert "s3a://bucket/shop" in capsys.readouterr().err


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    def start() -> Any:
        raise AssertionError("nothing may be written")

    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "events").mkdir()
    for target, name in (
        (tmp_path, "letter.txt"),
        (tmp_path / "letter.txt", "is a file"),
        (tmp_path / "shop", "events"),
    ):
        with pytest.raises(UsageError, match=name):
            generate(start, SMALL, target, files=1, truth_rows=False, progress=QUIET)
