"""What `doctor` found, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from recbatch.operations.doctor import Finding


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    table = Table(box=box.SIMPLE)
    table.add_column("check", style="bold")
    table.add_column("")
    table.add_column("found")
    table.add_column("what to do")
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]problem[/red]"
        table.add_row(finding.name, mark, finding.detail, "" if finding.ok else finding.remedy)
    console.print(table)
