"""A delivery of the shop in a folder: written by Spark's workers, checked against its plan, and there at once."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from deltalake import convert_to_deltalake
from pyspark import Accumulator
from pyspark.sql import SparkSession

from recbatch.context import Progress, watched
from recbatch.errors import UsageError
from recbatch.synthetic.catalogue import plan_items
from recbatch.synthetic.plan import MAIN, MORE, plan_main, plan_more
from recbatch.synthetic.shop import Shop
from recbatch.synthetic.tasks import ITEMS, TRUTH, Factory
from recbatch.synthetic.truth import events_truth, expected_rows, items_truth, overlay

# Written last, so that its presence says that everything is there.
MARKER, TRUTH_FILE, CONFIG_FILE = "generate.json", "truth.json", "recbatch.yaml"
_OURS = {MARKER, TRUTH_FILE, CONFIG_FILE, MAIN, MORE, ITEMS, TRUTH}
_COUNTS = "part string, name string, rows long"


@dataclass(frozen=True)
class Delivery:
    """What is at `folder`: its truth, and whether it was written now or was there already."""

    folder: Path
    truth: dict[str, Any]
    written: bool


def generate(
    start: Callable[[], SparkSession], shop: Shop, target: Path, *, files: int, truth_rows: bool, progress: Progress
) -> Delivery:
    """Write the shop's files, `truth.json` and `recbatch.yaml` to `target`, a folder that driver and workers share.

    `start` gives the session and is called only where there is something to write: a complete delivery of the same
    options is left alone, one of others is replaced at once.

    Raises:
        UsageError: `target` holds files of others.
    """
    options = {**asdict(shop), "files": files, "truth_rows": truth_rows}
    target = target.absolute()
    _refuse_files_of_others(target)
    if _read(target / MARKER) == options:
        return Delivery(target, _read(target / TRUTH_FILE), written=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        fresh, replaced = Path(temporary) / "fresh", Path(temporary) / "replaced"
        truth = _write(start(), shop, fresh, target, files, truth_rows, progress)
        (fresh / MARKER).write_text(_json(options))
        if target.exists():
            target.rename(replaced)
        fresh.rename(target)
    return Delivery(target, truth, written=True)


def _refuse_files_of_others(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"'{target}' is a file", remedy="name a folder")
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if not names <= _OURS or (names and MARKER not in names):
        foreign = min(names - _OURS or names)
        raise UsageError(f"'{target}' holds files of others ('{foreign}')", remedy="name an empty folder or a new one")


def _read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.is_file() else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _write(
    spark: SparkSession, shop: Shop, folder: Path, target: Path, files: int, truth_rows: bool, progress: Progress
) -> dict[str, Any]:
    main = plan_main(shop)
    plans = {MAIN: main} | ({MORE: plan_more(shop, main)} if shop.extra_share > 0 else {})
    factory = Factory(shop, plans, plan_items(shop), folder, truth_rows)
    counted = _run(spark, factory, files, progress)
    expected = expected_rows(plans, factory.items)
    if counted != expected:
        raise RuntimeError(f"planned {expected}, but wrote {counted}")
    if shop.format == "delta":
        for part in expected:
            convert_to_deltalake(f"{folder / part}")
    truth = {part: events_truth(plan) for part, plan in plans.items()} | {ITEMS: items_truth(factory.items)}
    (folder / TRUTH_FILE).write_text(_json(truth))
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(overlay(shop, main, target), sort_keys=False))
    return truth


def _run(spark: SparkSession, factory: Factory, files: int, progress: Progress) -> dict[str, Counter[str]]:
    """Have every file written by a task of its own; returns the rows by part and by what was planted."""
    every = factory.work(files)
    meter = spark.sparkContext.accumulator(0)

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch.column(0).to_pylist()):
            counts = factory.make(every[number])
            meter.add(1)
            columns = [[every[number].part] * len(counts), list(counts), list(counts.values())]
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], ["part", "name", "rows"])

    progress.notify(f"writing {len(every)} files")
    tasks = spark.range(0, len(every), 1, numPartitions=len(every))
    with _watched(meter, len(every), progress):
        rows = tasks.mapInArrow(make, _COUNTS).collect()
    found: dict[str, Counter[str]] = {work.part: Counter() for work in every}
    for row in rows:
        found[row["part"]][row["name"]] += row["rows"]
    return found


def _watched(meter: Accumulator[int], files: int, progress: Progress) -> AbstractContextManager[None]:
    """Report the files that are done until the block ends."""
    began = time.monotonic()

    def look() -> None:
        if meter.value:
            left = (time.monotonic() - began) * (files - meter.value) / meter.value
            progress.advance("writing files", meter.value, files, f"{left:,.0f} s left")

    return watched(look)
