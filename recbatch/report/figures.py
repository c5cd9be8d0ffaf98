"""Figures and what they mean, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def print_figures(console: Console, title: str, figures: Sequence[tuple[str, str, str]]) -> None:
    """Print a line for every (name, value, meaning)."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column("", style="bold")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    for name, value, meaning in figures:
        table.add_row(name, value, meaning)
    console.print(table)
