"""What the Spark tests share: raw files on disk, configurations, and stages run as the runner runs them."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

from recbatch.cleaning.arrivals import everything
from recbatch.cleaning.duplicates import OUTCOMES
from recbatch.cleaning.events import parse_events
from recbatch.cleaning.rules import as_array
from recbatch.cleaning.staging import stage_rows
from recbatch.cleaning.verdicts import judge
from recbatch.config.cleaning import CleaningSection
from recbatch.config.inputs import EventsInput, ItemsInput
from recbatch.config.sections import Config
from recbatch.context import Progress, Request, StageContext
from recbatch.tables import columns as c
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore, Transaction

EVENT_COLUMNS = ["user", "item", "time", "type", "qty", "price", "weight", "basket", "query"]
EVENT_MAPPING: dict[str, Any] = {
    "user_id": "user",
    "item_id": "item",
    "event_time": "time",
    "event_type": "type",
    "quantity": "qty",
    "price": "price",
    "weight": "weight",
    "basket_id": "basket",
    "query": "query",
}
EVENT_TYPES = {"buy": "purchase", "look": "view"}
Row = Mapping[str, Any]


def events_input(path: Path | str, **changes: Any) -> EventsInput:
    return EventsInput.model_validate(
        {"path": str(path), "columns": EVENT_MAPPING, "event_types": EVENT_TYPES} | changes
    )


def event(**changes: str) -> dict[str, str]:
    """A raw event that nothing is wrong with."""
    row = {"user": "u1", "item": "i1", "time": "2024-03-01 10:00:00", "type": "buy", "qty": "1", "price": "2.5"}
    return dict.fromkeys(EVENT_COLUMNS, "") | row | changes


def csv_text(rows: Sequence[Row], columns: Sequence[str] = EVENT_COLUMNS) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(file: Path, rows: Sequence[Row], columns: Sequence[str] = EVENT_COLUMNS) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(csv_text(rows, columns), encoding="utf-8")
    return file


def judged(
    spark: SparkSession,
    source: EventsInput,
    cleaning: CleaningSection | None = None,
    known_items: DataFrame | None = None,
) -> list[dict[str, Any]]:
    """Every row of the log with its values, `reasons` as a list, and `outcome`."""
    section = cleaning or CleaningSection()
    with tempfile.TemporaryDirectory() as folder:
        parsed = parse_events(spark, source, section, known_items, 10, everything(spark, source))
        verdict = judge(stage_rows(*parsed, f"{folder}/rows", source.path), section)
        rows = verdict.rows.withColumn(c.REASONS, as_array(F.col(c.REASONS), verdict.codes))
        found = [row.asDict(recursive=True) for row in rows.collect()]
    counts, counted = verdict.counts(), Counter(row["outcome"] for row in found)
    assert {name: counts[name] for name in OUTCOMES} == {name: counted[name] for name in OUTCOMES}
    reasons = Counter(f"reason:{code}" for row in found for code in row["reasons"])
    assert {name: n for name, n in counts.items() if name.startswith("reason:")} == reasons
    return found


def make_config(
    warehouse: Path, events: EventsInput, items: ItemsInput | None = None, **sections: Mapping[str, Any]
) -> Config:
    return Config.model_validate({"warehouse": str(warehouse), "input": {"events": events, "items": items}} | sections)


def make_context(
    spark: SparkSession, config: Config, *, version: int = 1, as_of: Any = None, request: Request | None = None
) -> StageContext:
    return StageContext(
        spark,
        config,
        TableStore(spark, config.warehouse),
        f"run-{version}",
        Transaction("tests", version),
        as_of,
        Progress(lambda _: None, lambda *_: None),
        request or Request(),
    )


def rows_of(context: StageContext, spec: TableSpec) -> list[dict[str, Any]]:
    """The rows of a table as a reader without Spark sees them, which is also quicker; maps come as dictionaries."""
    maps = [field.name for field in spec.schema if isinstance(field.dataType, MapType)]
    rows: list[dict[str, Any]] = DeltaTable(context.tables.path(spec)).to_pyarrow_table().to_pylist()
    return [row | {name: dict(row[name]) for name in maps if row[name] is not None} for row in rows]
