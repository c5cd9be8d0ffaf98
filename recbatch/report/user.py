"""One user's past and recommendations, side by side with the reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from recbatch.errors import InputContractError
from recbatch.report.reader import WarehouseReader
from recbatch.tables import columns as c
from recbatch.tables import schemas

_REASONS = {
    "often_follows": "often follows {because}",
    "similar_to_history": "goes with {because}",
    "popular": "popular these weeks",
}


def show_user(console: Console, reader: WarehouseReader, user_id: str, limit: int) -> None:
    """Print what the user took most, the latest first of equals, and the top `limit` recommendations.

    A user without recommendations gets the default list, and the screen says so.
    """
    lists = reader.rows(schemas.RECOMMENDATIONS.name, filters=[(c.USER_ID, "=", user_id)])
    known = bool(lists)
    if not known:
        lists = reader.rows(schemas.DEFAULT_RECOMMENDATIONS.name)
    lists = sorted(lists, key=lambda row: row[c.RANK])[:limit]
    events = reader.rows(schemas.EVENTS.name, columns=[c.ITEM_ID, c.EVENT_TIME], filters=[(c.USER_ID, "=", user_id)])
    times = Counter(row[c.ITEM_ID] for row in events)
    last = {row[c.ITEM_ID]: row[c.EVENT_TIME] for row in sorted(events, key=lambda row: row[c.EVENT_TIME])}
    favourites = sorted(times, key=lambda item: (times[item], last[item]), reverse=True)[:limit]
    shown = {*favourites, *(row[c.ITEM_ID] for row in lists), *(row.get(c.BECAUSE_ITEM_ID) for row in lists)}
    titles = _titles(reader, {item for item in shown if item is not None})
    if events:
        console.print(_history(user_id, favourites, times, last, titles, len(events)))
    console.print(_recommendations(user_id, lists, titles, known=known))


def some_user(reader: WarehouseReader) -> str:
    """A user with a list, for a screen that wants an example: the first id of the lowest bucket.

    Raises:
        InputContractError: nothing is published yet.
    """
    table = reader.read(schemas.RECOMMENDATIONS.name, columns=[c.USER_ID], filters=[(c.USER_BUCKET, "=", 0)])
    users = (
        table[c.USER_ID].unique().to_pylist()
        or reader.read(schemas.RECOMMENDATIONS.name, columns=[c.USER_ID])[c.USER_ID].unique().to_pylist()
    )
    if not users:
        raise InputContractError("table 'recommendations' has no rows", remedy="run `recbatch run`")
    return str(min(users))


def _titles(reader: WarehouseReader, items: set[str]) -> dict[str, str]:
    rows = reader.rows(schemas.ITEMS.name, columns=[c.ITEM_ID, c.TITLE], filters=[(c.ITEM_ID, "in", sorted(items))])
    return {row[c.ITEM_ID]: row[c.TITLE] or row[c.ITEM_ID] for row in rows}


def _history(
    user_id: str,
    favourites: list[str],
    times: Counter[str],
    last: dict[str, Any],
    titles: dict[str, str],
    events: int,
) -> Table:
    table = Table(
        title=f"User {user_id}: {events:,} interactions with {len(times):,} items, most frequent first",
        box=box.SIMPLE,
        title_justify="left",
    )
    table.add_column("item")
    table.add_column("times", justify="right")
    table.add_column("last", style="dim")
    for item in favourites:
        table.add_row(titles.get(item, item), str(times[item]), f"{last[item]:%Y-%m-%d}")
    return table


def _recommendations(user_id: str, rows: list[dict[str, Any]], titles: dict[str, str], *, known: bool) -> Table:
    title = f"Recommended to user {user_id}" if known else f"User {user_id} is unknown: the default list"
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column("#", justify="right", style="dim")
    table.add_column("item", style="bold")
    table.add_column("score", justify="right", style="dim")
    table.add_column("why")
    for row in rows:
        because = row.get(c.BECAUSE_ITEM_ID) or ""
        why = _REASONS.get(row[c.REASON], row[c.REASON]).format(because=titles.get(because, because))
        table.add_row(str(row[c.RANK]), titles.get(row[c.ITEM_ID], row[c.ITEM_ID]), f"{row[c.SCORE]:.3f}", why)
    return table
