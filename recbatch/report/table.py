"""Any table of the warehouse as a screen."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from recbatch.errors import UsageError
from recbatch.report.reader import Filter, WarehouseReader
from recbatch.tables import columns as c
from recbatch.tables import schemas

_LONGEST = 60


def show_table(console: Console, reader: WarehouseReader, name: str, user_id: str | None, limit: int) -> None:
    """Print the first `limit` rows, of one user where `user_id` is given.

    Raises:
        UsageError: there is no such table, or it has no user_id.
    """
    if name not in schemas.ALL:
        raise UsageError(f"there is no table '{name}'", remedy=f"one of {', '.join(sorted(schemas.ALL))}")
    spec = schemas.ALL[name]
    if user_id is not None and c.USER_ID not in spec.schema.names:
        raise UsageError(f"table '{name}' has no column '{c.USER_ID}'", remedy="leave out --user")
    filters: list[Filter] | None = None if user_id is None else [(c.USER_ID, "=", user_id)]
    rows = reader.head(name, limit, filters=filters)
    table = Table(title=f"{name}: {len(rows)} rows", box=box.SIMPLE, title_justify="left")
    for column in spec.schema.names:
        table.add_column(column)
    for row in rows:
        table.add_row(*[_short(row[column]) for column in spec.schema.names])
    console.print(table)


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
