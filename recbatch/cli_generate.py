"""The command `generate`: a synthetic shop's raw files, with the truth about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from recbatch.errors import UsageError
from recbatch.report.figures import print_figures
from recbatch.report.progress import ConsoleProgress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from recbatch.synthetic.delivery import Delivery
    from recbatch.synthetic.shop import Shop

EXAMPLE = (
    "Example: recbatch generate data/shop --events 1000000 --format json --truth-rows, then recbatch clean "
    "--config data/shop/recbatch.yaml --set warehouse=data/shop-warehouse"
)
_EVENTS_A_USER, _EVENTS_AN_ITEM = 50, 500
_LEAST_ITEMS, _LEAST_FILES, _EVENTS_A_FILE = 500, 8, 2_500_000
_MEANING = {
    "read": "rows of the raw files",
    "accepted": "rows that cleaning keeps",
    "exact_duplicate": "rows that repeat another one",
    "key_duplicate": "rows that repeat another one's key with other content",
    "rejected": "rows that cleaning rejects, with a reason",
}


def command(
    target: Annotated[str, typer.Argument(help="Folder to write to: a new one, an empty one or an earlier delivery.")],
    events: Annotated[int, typer.Option(help="Rows of the log, planted ones included.")] = 1_000_000,
    users: Annotated[int | None, typer.Option(min=1, help="Default: one for 50 events.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Default: one for 500 events, at least 500.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and options give the same rows.")] = 7,
    days: Annotated[int, typer.Option(help="Length of the log, from 2025-03-24 on.")] = 365,
    file_format: Annotated[
        Literal["csv", "json", "parquet", "delta"], typer.Option("--format", help="Of all files.")
    ] = "csv",
    files: Annotated[
        int | None, typer.Option(min=1, help="Files of events; the rows are the same. Default: by size, at least 8.")
    ] = None,
    time: Annotated[
        Literal["milliseconds", "text"], typer.Option(help="Event times: since 1970, or on the wall clock of Berlin.")
    ] = "milliseconds",
    faults: Annotated[float, typer.Option(help="Share of planted rows, about, 0 to 0.1.")] = 0.02,
    extra_share: Annotated[
        float, typer.Option(help="Also write events_more: so many later events, as a share of the log.")
    ] = 0.0,
    truth_rows: Annotated[
        bool, typer.Option("--truth-rows", help="Also write the rows that cleaning accepts, as Parquet in truth/.")
    ] = False,
) -> None:
    """Write a made-up shop's log and catalogue, with planted faults, their exact numbers and a configuration."""
    from recbatch.synthetic.shop import Shop

    shop = Shop(
        events=events,
        users=users or max(1, events // _EVENTS_A_USER),
        items=items or max(_LEAST_ITEMS, events // _EVENTS_AN_ITEM),
        seed=seed,
        days=days,
        faults=faults,
        extra_share=extra_share,
        format=file_format,
        time=time,
    )
    _print_truth(
        *_generate(shop, _folder(target), files or max(_LEAST_FILES, -(-events // _EVENTS_A_FILE)), truth_rows)
    )


def _folder(target: str) -> Path:
    if "://" in target:
        raise UsageError(f"'{target}' is an address", remedy="name a folder that all workers reach by its path")
    return Path(target)


def _generate(shop: Shop, target: Path, files: int, truth_rows: bool) -> tuple[Console, Delivery]:
    from recbatch.config.sections import SparkSection
    from recbatch.session import build_session
    from recbatch.synthetic.delivery import generate

    def start() -> SparkSession:
        return build_session(SparkSection(), f"recbatch generate {target}")

    console = Console(width=None if sys.stdout.isatty() else 120)
    with ConsoleProgress(console) as progress:
        progress.notify(f"a shop of {shop.events:,} events, {shop.users:,} users and {shop.items:,} items in {target}")
        return console, generate(start, shop, target, files=files, truth_rows=truth_rows, progress=progress)


def _print_truth(console: Console, delivery: Delivery) -> None:
    title = f"{delivery.folder}" + ("" if delivery.written else " (already there)")
    for part, found in delivery.truth.items():
        figures = [(name, f"{found[name]:,}", meaning) for name, meaning in _MEANING.items()]
        print_figures(console, f"{title}: {part}", figures)
