"""A synthetic shop is cleaned as its truth says: every count, every reason and every accepted row."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recbatch.config import load_config
from recbatch.context import Progress
from recbatch.flow import stage_named
from recbatch.runner import Runner
from recbatch.synthetic.delivery import CONFIG_FILE, TRUTH_FILE, generate
from recbatch.synthetic.shop import Shop

QUIET = Progress(lambda _: None, lambda *_: None)
OUTCOMES = ("read", "accepted", "exact_duplicate", "key_duplicate", "rejected")
SHOP: dict[str, Any] = {"events": 4_000, "users": 80, "items": 300, "days": 10}


def _no_session() -> SparkSession:
    raise AssertionError("nothing is left to write")


def _clean(spark: SparkSession, shop: Path, warehouse: Path, *changes: str, run_id: str = "test") -> dict[str, int]:
    config = load_config([shop / CONFIG_FILE], [f"warehouse={warehouse}", *changes])
    runner = Runner(spark, config, run_id=run_id, as_of=None, progress=QUIET)
    (outcome,) = runner.run([stage_named("clean")])
    assert outcome.result is not None
    return dict(outcome.result.row_counts)


def _table(warehouse: Path, name: str) -> pa.Table:
    return DeltaTable(f"{warehouse}/{name}").to_pyarrow_table()


def _ordered(rows: pa.Table) -> list[Any]:
    return sorted(rows.to_pylist(), key=repr)


def _reasons(warehouse: Path, name: str) -> dict[str, int]:
    return dict(Counter(reason for row in _table(warehouse, name)["reasons"].to_pylist() for reason in row))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("file_format", "time", "files"),
    [
        ("csv", "milliseconds", 16),
        ("json", "text", 4),
        pytest.param("csv", "text", 1, marks=SLOW),
        pytest.param("csv", "milliseconds", 4, marks=SLOW),
        pytest.param("json", "milliseconds", 1, marks=SLOW),
        pytest.param("parquet", "text", 4, marks=SLOW),
        pytest.param("parquet", "milliseconds", 16, marks=SLOW),
        pytest.param("delta", "milliseconds", 1, marks=SLOW),
        pytest.param("delta", "text", 16, marks=SLOW),
    ],
)
def test_cleaning_finds_what_was_planted(
    spark: SparkSession, tmp_path: Path, file_format: str, time: str, files: int
) -> None:
    shop, warehouse = tmp_path / "shop", tmp_path / "warehouse"
    options = Shop(**SHOP, format=file_format, time=time)
    truth = generate(lambda: spark, options, shop, files=files, truth_rows=True, progress=QUIET).truth
    assert truth == json.loads((shop / TRUTH_FILE).read_text())
    assert len(list((shop / "events").glob("*.*"))) == files
    again = generate(_no_session, options, shop, files=files, truth_rows=True, progress=QUIET)
    assert (again.truth, again.written) == (truth, False)
    counts = _clean(spark, shop, warehouse)
    for part in ("events", "items"):
        assert {name: counts[f"{part}:{name}"] for name in OUTCOMES} == {name: truth[part][name] for name in OUTCOMES}
        assert _reasons(warehouse, f"rejected_{part}") == truth[part]["reasons"]
    expected = pq.read_table(shop / "truth" / "events")
    assert expected.num_rows == truth["events"]["accepted"]
    assert _ordered(_table(warehouse, "events").select(expected.column_names)) == _ordered(expected)
    imputed = Counter(name for row in _table(warehouse, "items")["imputed"].to_pylist() for name in row)
    assert imputed == {name: truth["items"]["missing"][name] for name in ("brand", "weight_grams")}


@SLOW
def test_a_second_delivery_is_cleaned_as_its_truth_says(spark: SparkSession, tmp_path: Path) -> None:
    """Later events, late ones and some that were there before: each is counted against all that has been cleaned."""
    shop, warehouse, raw = tmp_path / "shop", tmp_path / "warehouse", tmp_path / "raw"
    options = Shop(**SHOP, format="csv", time="milliseconds", extra_share=0.1)
    truth = generate(lambda: spark, options, shop, files=4, truth_rows=False, progress=QUIET).truth
    raw.mkdir()
    accepted = 0
    for delivery in ("events", "events_more"):
        shutil.copytree(shop / delivery, raw / delivery)
        counts = _clean(spark, shop, warehouse, f"input.events.path={raw}/*/*", run_id=delivery)
        assert {name: counts[f"events:{name}"] for name in OUTCOMES} == {
            name: truth[delivery][name] for name in OUTCOMES
        }
        accepted += counts["events:accepted"]
        assert len(_table(warehouse, "events")) == accepted
    assert truth["events_more"]["exact_duplicate"] > 0
    both = Counter(truth["events"]["reasons"]) + Counter(truth["events_more"]["reasons"])
    assert _reasons(warehouse, "rejected_events") == dict(both)
