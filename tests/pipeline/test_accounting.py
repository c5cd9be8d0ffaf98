"""Every raw row is accounted for, and the ledger knows what is done, what changed and what was left half done."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recbatch.errors import GateFailedError
from recbatch.flow import STAGES, stage_named
from tests.pipeline.slice import ROOT, UNKNOWN_PRODUCT, Slice
from tests.pipeline.support import PUBLISHED, Release, read, rows, run, versions

NAMES = [stage.name for stage in STAGES]
PER_RUN = {"run_id", "published_at", "release_id"}


def _natural(raw: Slice) -> tuple[Counter[str], Counter[str]]:
    """Outcomes and reasons of the rows that were there before faults were planted, by a plain loop."""
    products = {str(one) for one in pq.read_table(raw.folder / "products")["product_id"].to_pylist()}
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    keys: set[tuple[str, ...]] = set()
    for row in raw.rows:
        codes = ["zero_quantity"] * (float(row["quantity"]) == 0)
        codes += ["unknown_item"] * (row["product_id"] not in products)
        key = (row["household_id"], row["product_id"], row["transaction_timestamp"], row["basket_id"])
        outcomes["rejected" if codes else "key_duplicate" if key in keys else "accepted"] += 1
        reasons.update(codes)
        keys |= set() if codes else {key}
    return outcomes, reasons


def _done(warehouse: Path, stage: str) -> dict[str, Any]:
    (row,) = [row for row in rows(warehouse, "runs") if row["stage"] == stage and row["status"] == "done"]
    return row


def _ran(outcomes: list[Any]) -> list[str]:
    return [outcome.stage.name for outcome in outcomes if outcome.result is not None]


def _content(warehouse: Path, name: str) -> list[str]:
    """The rows of a table without what names the run, in a fixed order."""
    table = read(warehouse, name)
    return sorted(repr(row) for row in table.select([n for n in table.column_names if n not in PER_RUN]).to_pylist())


def test_every_row_of_the_log_is_counted_once(release: Release) -> None:
    natural, _ = _natural(release.slice)
    counts = dict(_done(release.warehouse, "clean")["row_counts"])
    expected = natural + release.slice.outcomes
    outcomes = {name: counts[f"events:{name}"] for name in ("accepted", "rejected", "exact_duplicate", "key_duplicate")}
    assert outcomes == dict(expected)
    assert counts["events:read"] == sum(outcomes.values()) == len(release.slice.rows) + release.slice.outcomes.total()
    assert read(release.warehouse, "events").num_rows == outcomes["accepted"]
    assert read(release.warehouse, "rejected_events").num_rows == outcomes["rejected"]


def test_every_reason_is_counted_and_kept_with_its_row(release: Release) -> None:
    _, natural = _natural(release.slice)
    expected = natural + release.slice.reasons
    rejected = rows(release.warehouse, "rejected_events")
    counts = dict(_done(release.warehouse, "clean")["row_counts"])
    counted = {name.removeprefix("events:reason:"): n for name, n in counts.items() if name.startswith("events:reason")}
    assert counted == dict(expected)
    assert Counter(code for row in rejected for code in row["reasons"]) == expected
    records = [row["raw_record"] for row in rejected]
    assert sum(UNKNOWN_PRODUCT in record for record in records) == 6
    assert "torn off in the mid" in records


def test_the_catalogue_is_counted_too(release: Release) -> None:
    counts = dict(_done(release.warehouse, "clean")["row_counts"])
    n_products = pq.read_table(release.slice.folder / "products").num_rows
    assert counts["items:read"] == counts["items:accepted"] == n_products
    assert read(release.warehouse, "items").num_rows == read(release.warehouse, "item_index").num_rows == n_products


def test_every_documented_table_is_there(release: Release) -> None:
    headings = re.findall(r"^### (`.*)$", (ROOT / "docs" / "tables.md").read_text(), re.MULTILINE)
    names = [name for heading in headings for name in re.findall(r"`(\w+)`", heading)]
    assert len(names) >= 25
    on_request = {"staged_audience_parts", "staged_audiences"}
    missing = {name for name in names if not (release.warehouse / name / "_delta_log").is_dir()}
    assert missing == on_request


def test_ranks_are_without_holes_and_items_without_repetition(release: Release) -> None:
    lists: dict[str, list[dict[str, Any]]] = {}
    for row in rows(release.warehouse, "recommendations"):
        lists.setdefault(row["user_id"], []).append(row)
    users = set(read(release.warehouse, "events")["user_id"].to_pylist())
    assert lists.keys() == users
    for user, entries in lists.items():
        entries.sort(key=lambda row: row["rank"])
        assert [row["rank"] for row in entries] == list(range(1, release.config.scoring.k + 1)), user
        assert len({row["item_id"] for row in entries}) == len(entries), user
        assert all(a["score"] >= b["score"] for a, b in pairwise(entries)), user


def test_lists_for_serving_are_the_same_lists(release: Release) -> None:
    entry = ("rank", "item_id", "score", "because_item_id", "reason")
    flat = {
        (row["user_id"], row["rank"]): tuple(row[n] for n in entry)
        for row in rows(release.warehouse, "recommendations")
    }
    nested = {
        (row["user_id"], place): tuple(one[n] for n in entry)
        for row in rows(release.warehouse, "recommendations_by_user")
        for place, one in enumerate(row["recommendations"], start=1)
    }
    assert nested == flat


def test_the_default_list_holds_what_most_users_took_recently(release: Release) -> None:
    entries = sorted(rows(release.warehouse, "default_recommendations"), key=lambda row: row["rank"])
    assert [row["rank"] for row in entries] == list(range(1, release.config.scoring.default_k + 1))
    events = rows(release.warehouse, "events")
    as_of = entries[0]["as_of"]
    takers = Counter(
        item
        for item, _ in {
            (row["item_id"], row["user_id"])
            for row in events
            if (as_of - row["event_time"]).total_seconds() <= release.config.features.recent_days * 86400
        }
    )
    gone = {row["item_id"] for row in rows(release.warehouse, "items") if row["valid_to"] and row["valid_to"] <= as_of}
    assert gone
    best = sorted((-users for item, users in takers.items() if item not in gone))[: len(entries)]
    assert [-row["score"] for row in entries] == best
    assert all(takers[row["item_id"]] == row["score"] for row in entries)
    assert not gone & {row["item_id"] for row in entries}


def test_runs_and_releases_record_the_run(release: Release) -> None:
    recorded = [(row["stage"], row["status"]) for row in rows(release.warehouse, "runs")]
    assert sorted(recorded) == sorted((name, status) for name in NAMES for status in ("started", "done"))
    assert {row["run_id"] for row in rows(release.warehouse, "runs")} == {"first"}
    (row,) = rows(release.warehouse, "releases")
    tables = [name for name in PUBLISHED if name != "releases"]
    assert dict(row["table_versions"]) == versions(release.warehouse, tables)
    assert all(gate["passed"] and gate["value"] >= gate["limit"] for gate in row["gates"])
    (model,) = rows(release.warehouse, "models")
    assert row["model_version"] == model["model_version"]


def test_a_second_run_has_nothing_to_do(release: Release) -> None:
    before = versions(release.warehouse, [*PUBLISHED, "runs"])
    outcomes = run(release.spark, release.config, run_id="second")
    assert [outcome.result for outcome in outcomes] == [None] * len(STAGES)
    assert versions(release.warehouse, [*PUBLISHED, "runs"]) == before


def test_a_changed_option_reruns_only_what_depends_on_it(release: Release, tmp_path: Path) -> None:
    config = release.copy(tmp_path / "warehouse", "scoring.k=5")
    assert _ran(run(release.spark, config, run_id="shorter")) == ["score", "publish"]
    shorter = {(row["user_id"], row["rank"]): row["item_id"] for row in rows(tmp_path / "warehouse", "recommendations")}
    longer = {(row["user_id"], row["rank"]): row["item_id"] for row in rows(release.warehouse, "recommendations")}
    assert shorter == {key: item for key, item in longer.items() if key[1] <= 5}
    assert len(rows(tmp_path / "warehouse", "releases")) == 2


def test_a_failed_gate_publishes_nothing_and_says_why(release: Release, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    config = release.copy(warehouse, "publishing.min_item_coverage=1.0")
    before = versions(warehouse)
    with pytest.raises(GateFailedError, match=r"gate item_coverage: 0\.\d+ is below its limit 1\.0"):
        run(release.spark, config, run_id="greedy")
    assert versions(warehouse) == before
    last = max(rows(warehouse, "runs"), key=lambda row: row["finished_at"] or row["started_at"])
    assert (last["stage"], last["status"], last["run_id"]) == ("publish", "failed", "greedy")
    assert "item_coverage" in last["message"]


def test_clean_resumes_after_a_failure_between_its_tables(release: Release, tmp_path: Path) -> None:
    warehouse, stage = tmp_path / "warehouse", stage_named("clean")
    config = release.slice.config(warehouse)
    warehouse.mkdir()
    obstacle = warehouse / "rejected_items"
    obstacle.write_text("a file where a later table's folder should be")
    with pytest.raises(Exception, match="rejected_items"):
        run(release.spark, config, [stage], run_id="broken")
    assert (warehouse / "events" / "_delta_log").is_dir()
    assert (warehouse / "items" / "_delta_log").is_dir()
    assert not (warehouse / "item_history").exists()
    obstacle.unlink()
    (outcome,) = run(release.spark, config, [stage], run_id="resumed")
    assert outcome.result is not None
    for spec in stage.writes:
        assert _content(warehouse, spec.name) == _content(release.warehouse, spec.name), spec.name
        # What the first attempt had committed was not written again, and all rows are of one run.
        assert versions(warehouse, [spec.name]) == versions(release.warehouse, [spec.name])
        assert set(read(warehouse, spec.name)["run_id"].to_pylist()) <= {"broken"}


def test_publish_resumes_after_a_failure_between_its_tables(release: Release, tmp_path: Path) -> None:
    warehouse, stage = tmp_path / "warehouse", stage_named("publish")
    config = release.copy(warehouse)
    for name in PUBLISHED:
        shutil.rmtree(warehouse / name)
    obstacle = warehouse / "recommendations_by_user"
    obstacle.write_text("a file where the second table's folder should be")
    with pytest.raises(Exception, match="recommendations_by_user"):
        run(release.spark, config, [stage], run_id="broken")
    assert not (warehouse / "releases").exists()
    obstacle.unlink()
    run(release.spark, config, [stage], run_id="resumed")
    for name in ("recommendations", "recommendations_by_user", "default_recommendations"):
        assert _content(warehouse, name) == _content(release.warehouse, name), name
    (row,) = rows(warehouse, "releases")
    assert dict(row["table_versions"]) == versions(warehouse, [name for name in PUBLISHED if name != "releases"])
