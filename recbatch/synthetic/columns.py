"""Rows as Arrow columns: as a shop would deliver them, and as cleaning should leave them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recbatch.synthetic import calendar, vocabulary
from recbatch.synthetic.behaviour import Integers
from recbatch.synthetic.numbers import scatter
from recbatch.synthetic.rows import Rows
from recbatch.synthetic.shop import Shop
from recbatch.tables import columns as c

# The shop's own names.
TIME, USER, ITEM, TYPE = "occurred_at", "customer", "article", "action"
QUANTITY, PRICE, VISIT, QUERY = "amount", "unit_price", "visit", "search"
RAW = (TIME, USER, ITEM, TYPE, QUANTITY, PRICE, VISIT, QUERY)

_FIRST_USER, _FIRST_ITEM = 1_000_000, 100_000
# One in so many items has an id that is no number.
_ODD_ITEMS = 97
_TYPES = pa.array([*vocabulary.EVENT_TYPES, vocabulary.UNKNOWN_TYPE])
_CLEAN_TYPES = pa.array([*vocabulary.EVENT_TYPES.values()])
_UNKNOWN = len(_TYPES) - 1
_USER_IDS: dict[str, Callable[[int], str]] = {
    "non_numeric_user_id": vocabulary.non_numeric_user_id,
    "unicode_user_id": vocabulary.unicode_user_id,
    "long_user_id": vocabulary.long_user_id,
}


def typed(shop: Shop, rows: Rows, query_style: str = "plain") -> dict[str, pa.Array]:
    """The raw columns by name, as typed values; search texts in the style of a format."""
    return {
        TIME: _times(shop, rows),
        USER: _users(rows),
        ITEM: _items(shop, rows),
        TYPE: _types(rows),
        QUANTITY: _quantities(rows),
        PRICE: _prices(rows),
        VISIT: pa.array(rows.log.visit),
        QUERY: _queries(rows, query_style),
    }


def as_text(shop: Shop, rows: Rows, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Typed columns as text, with what only text can hold: texts where JSON has numbers are in quotes."""
    no_time, no_price = "2025-02-30 25:61:00", vocabulary.as_value("twelve", shop.format)
    if shop.time == "milliseconds":
        no_time = vocabulary.as_value(no_time, shop.format)
    texts = {name: column.cast(pa.string()) for name, column in columns.items()}
    texts[TIME] = _replaced(texts[TIME], rows.at("impossible_time"), lambda _: no_time, rows)
    texts[PRICE] = _replaced(texts[PRICE], rows.at("nan_price"), lambda _: "NaN", rows)
    texts[PRICE] = _replaced(texts[PRICE], rows.at("price_in_words"), lambda _: no_price, rows)
    return texts


def cleaned(shop: Shop, rows: Rows) -> pa.Table:
    """Accepted rows as the table `events` should hold them; a missing quantity is 1, as the configuration says."""
    seconds = rows.log.time // 1000
    micros = rows.log.time * 1000 if shop.time == "milliseconds" else calendar.wall_to_utc(seconds) * 1_000_000
    quantity = rows.log.quantity.astype(np.float64)
    return pa.table(
        {
            c.USER_ID: _users(rows),
            c.ITEM_ID: _items(shop, rows),
            c.EVENT_TYPE: _CLEAN_TYPES.take(pa.array(rows.log.kind)),
            c.EVENT_TIME: pa.array(micros).cast(pa.timestamp("us", tz="UTC")),
            c.QUANTITY: pa.array(np.where(quantity == 0, 1.0, quantity)),
            c.PRICE: _prices(rows),
            c.BASKET_ID: pa.array(rows.log.visit).cast(pa.string()),
            c.QUERY: _queries(rows, "plain"),
        }
    )


def _replaced(column: pa.Array, places: Integers, text: Callable[[int], str], rows: Rows) -> pa.Array:
    """`column` with other texts at some places, made of the numbers of the rows there."""
    if len(places) == 0:
        return column
    texts = pa.array([text(int(number)) for number in rows.log.number[places]], column.type)
    return pc.replace_with_mask(column, pa.array(_mask(rows, places)), texts)


def _mask(rows: Rows, places: Integers) -> NDArray[np.bool_]:
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[places] = True
    return mask


def _times(shop: Shop, rows: Rows) -> pa.Array:
    time = rows.log.time
    missing = _mask(rows, rows.at("missing_time"))
    if shop.time == "text":
        return pa.array(time // 1000, mask=missing).cast(pa.timestamp("s")).cast(pa.string())
    seconds = rows.at("seconds_for_milliseconds")
    if len(seconds):
        time = time.copy()
        time[seconds] //= 1000
    return pa.array(time, mask=missing)


def _users(rows: Rows) -> pa.Array:
    missing = _mask(rows, rows.at("missing_user_id", "several"))
    ids = pa.array(_FIRST_USER + rows.log.user, mask=missing).cast(pa.string())
    for name, text in _USER_IDS.items():
        ids = _replaced(ids, rows.at(name), text, rows)
    return ids


def item_ids(shop: Shop, items: Integers) -> pa.Array:
    """The ids of items by number; scattered, so that an id does not tell how popular the item is."""
    ids = pa.array(_FIRST_ITEM + items * scatter(shop.items) % shop.items).cast(pa.string())
    odd = items % _ODD_ITEMS == 5
    if not odd.any():
        return ids
    return pc.replace_with_mask(ids, pa.array(odd), pa.array([vocabulary.odd_item_id(int(n)) for n in items[odd]]))


def _items(shop: Shop, rows: Rows) -> pa.Array:
    ids = item_ids(shop, rows.log.item)
    ids = _replaced(ids, rows.at("unknown_item"), lambda number: f"nowhere-{number}", rows)
    missing = rows.at("missing_item_id")
    return _replaced(ids, missing, lambda _: "", rows) if len(missing) else ids


def _types(rows: Rows) -> pa.Array:
    kind = rows.log.kind.copy()
    kind[rows.at("unknown_event_type", "several")] = _UNKNOWN
    return _TYPES.take(pa.array(kind, mask=_mask(rows, rows.at("missing_event_type"))))


def _quantities(rows: Rows) -> pa.Array:
    quantity = rows.log.quantity
    missing = quantity == 0
    missing[rows.at("zero_quantity")] = False
    quantity = np.where(_mask(rows, rows.at("zero_quantity")), 0, quantity)
    return pa.array(quantity, mask=missing)


def _prices(rows: Rows) -> pa.Array:
    price = rows.log.price / 100.0
    price[rows.at("nan_price")] = np.nan
    return pa.array(price, mask=_mask(rows, rows.at("missing_price")))


def _queries(rows: Rows, style: str) -> pa.Array:
    numbers = rows.log.query
    return vocabulary.queries(style).take(pa.array(numbers, mask=numbers < 0))


def schema(shop: Shop) -> pa.Schema:
    """Of the raw events in Parquet."""
    kinds = dict.fromkeys(RAW, pa.string()) | {QUANTITY: pa.int64(), PRICE: pa.float64(), VISIT: pa.int64()}
    if shop.time == "milliseconds":
        kinds[TIME] = pa.int64()
    return pa.schema(list(kinds.items()))


CLEANED = pa.schema(
    [
        (c.USER_ID, pa.string()),
        (c.ITEM_ID, pa.string()),
        (c.EVENT_TYPE, pa.string()),
        (c.EVENT_TIME, pa.timestamp("us", tz="UTC")),
        (c.QUANTITY, pa.float64()),
        (c.PRICE, pa.float64()),
        (c.BASKET_ID, pa.string()),
        (c.QUERY, pa.string()),
    ]
)
