"""A log that arrives in parts: every part is cleaned once, and together they give what one run over all of it gives."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from recbatch.cleaning.generation import Generation
from recbatch.config.inputs import EventsInput
from recbatch.config.sections import Config
from recbatch.context import Progress, Request
from recbatch.errors import InputContractError, UsageError
from recbatch.flow import stage_named
from recbatch.runner import Runner
from recbatch.tables import columns as c
from recbatch.tables.ledger import StageResult
from recbatch.tables.store import TableStore
from tests.spark.support import EVENT_COLUMNS, Row, event, events_input, make_config, write_csv

BOTS = {"max_events_a_day": 12, "max_events_a_minute": 6}
TABLES = ("events", "rejected_events", "bots")


def _log() -> list[Row]:
    """Three days of a dozen people and a bot whose events only together are too many; repeats, faults, late events."""
    random = np.random.default_rng(5)
    start = dt.datetime(2024, 3, 1)
    rows: list[Row] = []
    for n in range(90):
        time = start + dt.timedelta(minutes=48 * n + float(random.integers(0, 40)))
        rows.append(event(user=f"u{n % 12}", item=f"i{random.integers(0, 9)}", time=f"{time:%Y-%m-%d %H:%M:%S}"))
    for n in range(14):
        rows.append(event(user="bot", item=f"i{n}", time=f"2024-03-02 {n:02d}:00:00"))
    rows.append(event(user="bot", item="i1", time="2024-03-01 10:00:00"))
    rows += [rows[int(n)] for n in random.integers(0, 90, 12)]
    rows += [event(user=f"u{n}", qty="-1") for n in range(3)] + [event(user="", item="i1"), event(user="bot", qty="x")]
    return [rows[int(n)] for n in random.permutation(len(rows))]


def _config(folder: Path, **cleaning: Any) -> Config:
    return make_config(
        folder / "warehouse",
        events_input(folder / "raw"),
        cleaning={"bots": BOTS, "max_rejected_share": 0.5} | cleaning,
        spark={"shuffle_partitions": 2},
    )


def _clean(spark: SparkSession, config: Config, run_id: str = "run", **request: Any) -> StageResult | None:
    quiet = Progress(lambda _: None, lambda *_: None)
    runner = Runner(spark, config, run_id=run_id, as_of=None, progress=quiet, request=Request(**request))
    return runner.run([stage_named("clean")])[0].result


def _content(config: Config, name: str) -> Counter[tuple[Any, ...]]:
    """The rows of a table without what tells which run and file they came with."""
    table = DeltaTable(f"{config.warehouse}/{name}").to_pyarrow_table()
    kept = [one for one in table.column_names if one not in (c.RUN_ID, c.SOURCE_FILE, c.RAW_RECORD)]
    return Counter(tuple(map(str, row.values())) for row in table.select(sorted(kept)).to_pylist())


def _deliver(folder: Path, number: int, rows: Sequence[Row]) -> None:
    write_csv(folder / "raw" / f"{number}.csv", rows, EVENT_COLUMNS)


@pytest.fixture(scope="module")
def whole(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, StageResult]:
    folder = tmp_path_factory.mktemp("whole")
    _deliver(folder, 0, _log())
    config = _config(folder)
    result = _clean(spark, config)
    assert result is not None
    return config, result


@pytest.mark.slow
def test_parts_give_the_tables_of_the_whole(
    spark: SparkSession, tmp_path: Path, whole: tuple[Config, StageResult]
) -> None:
    config, log = _config(tmp_path), _log()
    counts: Counter[str] = Counter()
    for number in range(2):
        _deliver(tmp_path, number, log[number * 61 : (number + 1) * 61])
        result = _clean(spark, config, f"run-{number}")
        assert result is not None
        counts.update(result.row_counts)
    for name in TABLES:
        assert _content(config, name) == _content(whole[0], name)
    expected = whole[1].row_counts
    moved = counts["events:evicted"]
    assert moved > 0
    assert counts["events:read"] == len(log) == expected["events:read"]
    assert counts["events:accepted"] - moved == expected["events:accepted"]
    assert counts["events:rejected"] + moved == expected["events:rejected"]
    assert counts["events:exact_duplicate"] == expected["events:exact_duplicate"]
    # Nothing new: nothing to do. The same rows under another name: nothing is added.
    assert _clean(spark, config) is None
    _deliver(tmp_path, 7, log)
    result = _clean(spark, config, "again")
    assert result is not None
    assert result.row_counts["events:accepted"] == 0
    assert _content(config, "events") == _content(whole[0], "events")


class _KilledError(Exception):
    """Raised in place of a process that dies."""


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list [n]: the n-th commit from now on is the last one that happens before the process dies; [-1]: none dies."""
    left = [-1]

    def dying(method: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                raise _KilledError
            left[0] -= 1
            return method(*arguments, **keywords)

        return call

    for name in ("append", "replace", "delete_matching"):
        monkeypatch.setattr(TableStore, name, dying(getattr(TableStore, name)))
    monkeypatch.setattr(Generation, "record", dying(Generation.record))
    return left


@pytest.mark.slow  # cleans several times
def test_a_run_that_is_killed_at_any_commit_continues(
    spark: SparkSession, tmp_path: Path, whole: tuple[Config, StageResult], killer: list[int]
) -> None:
    config, log = _config(tmp_path), _log()
    _deliver(tmp_path, 0, log[:60])
    assert _clean(spark, config, "first") is not None
    _deliver(tmp_path, 1, log[60:])
    deaths = 0
    # Of the first two nothing is committed yet; after the seventh nothing is left to do.
    for commits in (1, 3, 4, 5, 6, 100):
        killer[0] = commits
        try:
            result = _clean(spark, config, "second")
        except _KilledError:
            deaths += 1
            continue
        break
    assert deaths == 5
    assert result is not None
    counts = result.row_counts
    assert counts["events:read"] == len(log) - 60
    outcomes = ("accepted", "rejected", "exact_duplicate", "key_duplicate")
    assert sum(counts[f"events:{name}"] for name in outcomes) == counts["events:read"]
    for name in TABLES:
        assert _content(config, name) == _content(whole[0], name)


@pytest.mark.slow  # cleans several times
def test_a_changed_rule_cleans_everything_again_where_the_files_are_there(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(2):
        _deliver(tmp_path, number, [event(user=f"u{number}", qty=str(n), basket=str(n)) for n in range(1, 6)])
    _clean(spark, _config(tmp_path))
    changed = _config(tmp_path, rules=[{"reason": "bulk", "when": "quantity > 3"}])
    result = _clean(spark, changed, "changed")
    assert result is not None
    assert (result.row_counts["events:accepted"], result.row_counts["events:reason:bulk"]) == (6, 4)
    (tmp_path / "raw" / "0.csv").unlink()
    with pytest.raises(UsageError, match=r"1 of the 2 files .*0\.csv"):
        _clean(spark, _config(tmp_path))
    assert _content(changed, "events").total() == 6
    result = _clean(spark, _config(tmp_path), "refreshed", full_refresh=True)
    assert result is not None
    assert result.row_counts["events:accepted"] == 5


@pytest.mark.slow  # cleans several times
def test_a_rewritten_file_is_named_and_others_are_read(spark: SparkSession, tmp_path: Path) -> None:
    config = _config(tmp_path)
    _deliver(tmp_path, 0, [event(user="u1")])
    _clean(spark, config)
    _deliver(tmp_path, 0, [event(user="u1"), event(user="u2")])
    _deliver(tmp_path, 1, [event(user="u3")])
    result = _clean(spark, config, "second")
    assert result is not None
    assert "0.csv' changed after it was cleaned" in result.message
    assert {row[0] for row in _users(config)} == {"u1", "u3"}


def _users(config: Config) -> list[tuple[str]]:
    table = DeltaTable(f"{config.warehouse}/events").to_pyarrow_table(columns=["user_id"])
    return [(row["user_id"],) for row in table.to_pylist()]


def _parquet_config(folder: Path, kind: str = "parquet") -> Config:
    source = EventsInput.model_validate(
        {
            "path": str(folder / "raw"),
            "format": kind,
            "columns": {"user_id": "user", "item_id": "item", "event_time": "time", "price": "price"},
        }
    )
    return make_config(folder / "warehouse", source)


def _table(user: str, price: Any = 1.0, **extra: Any) -> pa.Table:
    time = dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC)
    return pa.table(
        {"user": [user], "item": ["i"], "time": [time], "price": [price]} | {k: [v] for k, v in extra.items()}
    )


def test_a_new_column_is_named_and_a_retyped_one_stops_the_run(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    config = _parquet_config(tmp_path)
    pq.write_table(_table("u1"), tmp_path / "raw" / "a.parquet")
    _clean(spark, config)
    # Another width of a number is no other type.
    pq.write_table(_table("u2", price=2, colour="red"), tmp_path / "raw" / "b.parquet")
    result = _clean(spark, config, "second")
    assert result is not None
    assert "new column 'colour' of file" in result.message
    before = _content(config, "events")
    assert before.total() == 2
    pq.write_table(_table("u3", price="3"), tmp_path / "raw" / "c.parquet")
    with pytest.raises(InputContractError, match=r"column 'price' of file '.*c\.parquet' holds text, and held number"):
        _clean(spark, config, "third")
    assert _content(config, "events") == before
    # The mended file is taken up.
    pq.write_table(_table("u3", price=3.0), tmp_path / "raw" / "c.parquet")
    _clean(spark, config, "fourth")
    assert _content(config, "events").total() == 3


@pytest.mark.slow  # cleans several times
def test_a_delta_source_is_read_by_version(spark: SparkSession, tmp_path: Path) -> None:
    config = _parquet_config(tmp_path, "delta")
    write_deltalake(tmp_path / "raw", _table("u1"))
    first = _clean(spark, config)
    write_deltalake(tmp_path / "raw", _table("u2"), mode="append")
    second = _clean(spark, config, "second")
    assert first is not None
    assert second is not None
    assert (first.row_counts["events:read"], second.row_counts["events:read"]) == (1, 1)
    assert sorted(_users(config)) == [("u1",), ("u2",)]
    write_deltalake(tmp_path / "raw", _table("u3"), mode="overwrite")
    with pytest.raises(InputContractError, match="only be appended to"):
        _clean(spark, config, "third")
