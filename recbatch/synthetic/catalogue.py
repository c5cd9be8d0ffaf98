"""The raw catalogue by ranges of items, with missing attributes and faulty rows in known numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recbatch.compilation import compiled
from recbatch.synthetic import assortment, vocabulary
from recbatch.synthetic.behaviour import Integers
from recbatch.synthetic.columns import item_ids
from recbatch.synthetic.faults import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, REJECTED
from recbatch.synthetic.numbers import scatter, subkey, uniform
from recbatch.synthetic.shop import Shop

ID, TITLE, CATEGORY, BRAND, TAGS = "article", "title", "category", "brand", "tags"
PRICE, WEIGHT, LAUNCHED, WITHDRAWN = "price", "weight_grams", "launched", "withdrawn"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in (ID, TITLE, CATEGORY, BRAND, TAGS)]
    + [(PRICE, pa.float64()), (WEIGHT, pa.int64()), (LAUNCHED, pa.string()), (WITHDRAWN, pa.string())]
)
Item = dict[str, Any]
_STREAM = 5
_MISSING = {BRAND: 0.03, WEIGHT: 0.02, TAGS: 0.1}
_DUPLICATES, _REPRICED, _OLDER, _FAULTY = 0.2, 0.05, 0.1, 0.05
# What was known of an item before its present row became valid; accepted, as a version of it.
OLDER_VERSION = "older_version"
MALFORMED = "malformed_record"
# By reason, what is wrong; only text can hold the last.
_FAULTS: dict[str, Item] = {
    "missing_item_id": {ID: None},
    "invalid_valid_from": {LAUNCHED: "2025-02-30"},
    "invalid_weight_grams": {WEIGHT: "heavy"},
}


@dataclass(frozen=True)
class ItemPlan:
    """Rows of the catalogue beside one good row an item, and missing attributes of good rows, by name."""

    shop: Shop
    planted: dict[str, int]
    missing: dict[str, int]

    @property
    def outcomes(self) -> dict[str, int]:
        found = {ACCEPTED: self.shop.items, EXACT_DUPLICATE: 0, KEY_DUPLICATE: 0, REJECTED: 0}
        for name, n in self.planted.items():
            found[ACCEPTED if name == OLDER_VERSION else name if name in found else REJECTED] += n
        return found

    @property
    def reasons(self) -> dict[str, int]:
        accepted = {OLDER_VERSION, *self.outcomes}
        return {name: n for name, n in self.planted.items() if name not in accepted and n > 0}


def plan_items(shop: Shop) -> ItemPlan:
    """The numbers of planted rows and missing attributes, from the options alone."""

    def share(of: float) -> int:
        return max(1, round(shop.items * shop.faults * of)) if shop.faults > 0 else 0

    planted = {EXACT_DUPLICATE: share(_DUPLICATES), KEY_DUPLICATE: share(_REPRICED), OLDER_VERSION: share(_OLDER)}
    faulty = _FAULTS.keys() | {MALFORMED} if shop.writes_lines else _FAULTS.keys() - {"invalid_weight_grams"}
    planted |= {name: share(_FAULTY) for name in sorted(faulty)}
    missing = {name: round(shop.items * of) if shop.faults > 0 else 0 for name, of in _MISSING.items()}
    return ItemPlan(shop, planted, missing)


@compiled
def _traits(seed: np.uint64, items: Integers, days: int) -> Integers:
    """Brand, weight, two tags, price, launch and withdrawal of items, (n, 7)."""
    found = np.empty((len(items), 7), dtype=np.int64)
    for n, item in enumerate(items):
        key = subkey(seed, _STREAM, item)
        # Some brands sell most, and an item weighs what its price and category say, about.
        found[n, 0] = np.int64(10 * uniform(key, 0) * uniform(key, 1))
        price = assortment.list_price(seed, item)
        found[n, 1] = 20 + np.int64(price * (0.5 + item % assortment.CATEGORIES / 40) * (0.8 + 0.4 * uniform(key, 2)))
        found[n, 2], found[n, 3] = np.int64(10 * uniform(key, 3)), np.int64(10 * uniform(key, 4))
        found[n, 4] = price
        found[n, 5] = assortment.launch_day(seed, item, days)
        found[n, 6] = assortment.withdrawal_day(seed, item, days)
    return found


def good_items(plan: ItemPlan, items: Integers) -> list[Item]:
    """One row for each of `items`."""
    shop = plan.shop
    ids = item_ids(shop, items).to_pylist()
    missing = {name: _is_missing(plan, name, place, items) for place, name in enumerate(_MISSING)}
    traits = _traits(np.uint64(shop.seed), items, shop.days).tolist()
    rows = []
    for n, (item, (brand, weight, tag, other, price, launched, withdrawn)) in enumerate(
        zip(items.tolist(), traits, strict=True)
    ):
        category = item % assortment.CATEGORIES
        tags = vocabulary.TAGS[tag] + (f"|{vocabulary.TAGS[other]}" if other != tag else "")
        rows.append(
            {
                ID: ids[n],
                TITLE: f'{vocabulary.category_name(category, item % 12)} "{vocabulary.BRANDS[brand]}", no. {item}',
                CATEGORY: vocabulary.category_name(category),
                BRAND: None if missing[BRAND][n] else vocabulary.BRANDS[brand],
                # Separators without a value between them are a missing value too.
                TAGS: (None, "|")[item % 2] if missing[TAGS][n] else tags,
                PRICE: price / 100,
                WEIGHT: None if missing[WEIGHT][n] else weight,
                LAUNCHED: shop.date(launched).isoformat(),
                WITHDRAWN: None if withdrawn == assortment.MOST_DAYS else shop.date(withdrawn).isoformat(),
            }
        )
    return rows


def _is_missing(plan: ItemPlan, name: str, place: int, items: Integers) -> list[bool]:
    n = plan.shop.items
    chosen: list[bool] = ((items * scatter(n) + place * (n // len(_MISSING))) % n < plan.missing[name]).tolist()
    return chosen


def planted_items(plan: ItemPlan, name: str) -> Iterator[Item]:
    """The planted rows of one name, none for lines that are no rows; faulty ones are of items that nobody ever saw."""
    n = plan.planted[name]
    copied = good_items(plan, np.arange(n) * (plan.shop.items // max(1, n)))
    if name == EXACT_DUPLICATE:
        yield from copied
    elif name == KEY_DUPLICATE:
        yield from (item | {PRICE: item[PRICE] + 1} for item in copied)
    elif name == OLDER_VERSION:
        yield from (item | {PRICE: item[PRICE] + 1, LAUNCHED: "2020-01-01"} for item in copied)
    elif name != MALFORMED:
        yield from (item | {ID: f"draft-{name}-{k}"} | _FAULTS[name] for k, item in enumerate(copied))


def item_lines(shop: Shop, rows: list[Item], malformed: int) -> bytes:
    """Rows, and as many lines that are no rows, as CSV without a header or as JSON lines."""
    if shop.format == "json":
        torn = '{"article":"draft-malformed-'
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return (text + "".join(f"{torn}{n}\n" for n in range(malformed))).encode()
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([row[name] for name in SCHEMA.names] for row in rows)
    return (stream.getvalue() + "".join(f"draft-malformed-{n},torn\n" for n in range(malformed))).encode()
