"""Rows of text under headings, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def print_columns(
    console: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int | None = None
) -> None:
    """Print the rows under their column names, numbers to the right; `marked`: the row that stands out."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for at, name in enumerate(names):
        numbers = all(row[at].lstrip("+-")[:1].isdigit() for row in rows if row[at])
        table.add_column(name, justify="right" if numbers else "left")
    for number, row in enumerate(rows):
        table.add_row(*row, style="green" if number == marked else None)
    console.print(table)
