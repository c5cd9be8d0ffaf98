"""What `evaluate` says of a model: every metric of the whole and of slices, and how it stands against the champion."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbatch.config import Config
from recbatch.context import Progress
from recbatch.evaluation.slices import LARGEST_VALUES
from recbatch.stages.evaluate import BASELINES, evaluate
from recbatch.stages.inputs import EVALUATION
from recbatch.stages.train import train
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.store import TableStore, Transaction
from tests.pipeline.support import Release, read, rows

Row = dict[str, Any]
PRIMARY = "ndcg@10"


def _retrained(release: Release, warehouse: Path, *overrides: str) -> Config:
    """A copy of the warehouse with one more candidate."""
    config = release.copy(warehouse, *overrides)
    train(release.context(config, version=50))
    return config


def _evaluated(release: Release, config: Config, version: int = 51) -> tuple[list[Row], list[str]]:
    """The rows of `evaluations` of one more run, and its notices."""
    notices: list[str] = []
    context = replace(
        release.context(config, version), run_id=f"run-{version}", progress=Progress(notices.append, lambda *_: None)
    )
    evaluate(context)
    return [row for row in rows(config.warehouse, "evaluations") if row[c.RUN_ID] == context.run_id], notices


def _means(found: Iterable[Row], scorer: str, part: str = "all") -> dict[tuple[str, str], float]:
    return {
        (row[c.TARGET_KIND], row[c.METRIC]): row[c.MEAN]
        for row in found
        if (row[c.SCORER], row[c.SLICE]) == (scorer, part)
    }


def test_every_row_is_named_once(release: Release) -> None:
    keys = [
        tuple(row[name] for name in (c.MODEL_VERSION, c.SCORER, c.TARGET_KIND, c.SLICE, c.METRIC))
        for row in rows(release.warehouse, "evaluations")
    ]
    assert len(keys) == len(set(keys))
    # The first model has no champion before it.
    assert {scorer for _, scorer, *_ in keys if "champion" in scorer} == set()


def test_metrics_beyond_accuracy_are_there_and_tell_popularity_from_the_rest(release: Release) -> None:
    found = rows(release.warehouse, "evaluations")
    popular, model = _means(found, "popularity"), _means(found, "model")
    for kind in ("new", "all"):
        assert 0 <= model[kind, "accuracy@1"] <= 1
        # Nothing has more users than what popularity shows.
        assert popular[kind, "novelty@10"] < model[kind, "novelty@10"]
    # To everyone the same ten, which are all in the short head.
    assert popular["all", "aplt@10"] == 0


def test_slices_are_parts_of_the_whole(release: Release) -> None:
    found = rows(release.warehouse, "evaluations")
    sliced = [row for row in found if row[c.SLICE] != "all"]
    users = {(row[c.TARGET_KIND], row[c.SLICE]): row[c.USERS] for row in found}
    for kind in ("new", "all"):
        light, heavy = users[kind, "light_users"], users[kind, "heavy_users"]
        assert light + heavy == users[kind, "all"]
        assert light <= heavy
        for part in {row[c.SLICE] for row in sliced}:
            assert 0 < users.get((kind, part), 1) <= users[kind, "all"]
        for metric in (PRIMARY, "recall@10"):
            whole = _means(found, "model")[kind, metric] * users[kind, "all"]
            parts = [
                _means(found, "model", part)[kind, metric] * users[kind, part]
                for part in ("light_users", "heavy_users")
            ]
            assert sum(parts) == pytest.approx(whole)
    assert {row[c.METRIC] for row in sliced} == {PRIMARY, "recall@10"}
    scorers = {row[c.SCORER] for row in sliced}
    assert "model" in scorers
    assert scorers - {"model"} <= set(BASELINES)


def test_categories_are_attributes_with_their_largest_values(release: Release) -> None:
    found = [row for row in rows(release.warehouse, "evaluations") if "=" in row[c.SLICE]]
    names: dict[str, set[str]] = {}
    for row in found:
        attribute, _, value = row[c.SLICE].partition("=")
        names.setdefault(attribute, set()).add(value)
    known = {(row["field"], row["value"]) for row in rows(release.warehouse, "category_index")}
    # Buckets of words mean nothing to people.
    assert names.keys() == {"department", "category", "product_type", "brand", "manufacturer"}
    assert {(name, value) for name, values in names.items() for value in values} <= known
    # Five for each of the two kinds of targets.
    assert all(0 < len(values) <= 2 * LARGEST_VALUES for values in names.values())


def test_new_items_are_those_that_the_log_did_not_know(release: Release) -> None:
    """Users of the slice, counted from the tables by hand."""
    cut = {row["snapshot"]: row["as_of"] for row in rows(release.warehouse, "snapshots")}[EVALUATION]
    moment = cut - dt.timedelta(days=release.config.features.recent_days)
    early = {row["item_id"] for row in rows(release.warehouse, "events") if row["event_time"] < moment}
    features = rows(release.warehouse, "evaluation_item_features")
    shown = {row["item_idx"] for row in features if row["eligible"]}
    old = {row["item_idx"] for row in features if row["item_id"] in early}
    past = {row["user_id"] for row in rows(release.warehouse, "evaluation_user_sequences")}
    targets = [
        set(row["targets"]) & shown for row in rows(release.warehouse, "evaluation_targets") if row["user_id"] in past
    ]
    found = {
        row[c.SLICE]: row[c.USERS] for row in rows(release.warehouse, "evaluations") if row[c.TARGET_KIND] == "all"
    }
    assert found["new_items"] == sum(bool(one - old) for one in targets)
    assert found["old_items"] == sum(bool(one & old) for one in targets)


def test_a_model_that_equals_the_champion_differs_by_nothing(release: Release, tmp_path: Path) -> None:
    found, notices = _evaluated(release, _retrained(release, tmp_path / "warehouse"))
    assert [line for line in notices if "champion" in line] == []
    assert _means(found, "champion") == _means(found, "model")
    gains = [row for row in found if row[c.SCORER] == "model - champion"]
    assert [(row[c.TARGET_KIND], row[c.METRIC]) for row in gains] == [("new", PRIMARY), ("all", PRIMARY)]
    assert {(row[c.MEAN], row[c.LOW], row[c.HIGH]) for row in gains} == {(0.0, 0.0, 0.0)}


def test_another_model_differs_from_the_champion_by_the_difference_of_their_means(
    release: Release, tmp_path: Path
) -> None:
    config = _retrained(release, tmp_path / "warehouse", "seed=8", "training.max_epochs=1")
    before = _means(rows(config.warehouse, "evaluations"), "model")
    found, _ = _evaluated(release, config)
    champion, model = _means(found, "champion"), _means(found, "model")
    gain = _means(found, "model - champion")
    for kind in ("new", "all"):
        assert gain[kind, PRIMARY] == pytest.approx(model[kind, PRIMARY] - champion[kind, PRIMARY])
        assert gain[kind, PRIMARY] != 0
        # It is tested as it was when it was the candidate; only the order of equal scores is drawn anew.
        assert champion[kind, PRIMARY] == pytest.approx(before[kind, PRIMARY], abs=0.02)
    # A candidate that is evaluated once more is still compared with the one before it.
    again, _ = _evaluated(release, config, version=52)
    assert _means(again, "champion") == champion


def test_a_champion_without_its_twin_is_left_out_and_named(release: Release, tmp_path: Path) -> None:
    config = _retrained(release, tmp_path / "warehouse")
    _evaluated(release, config)
    champion = max(row["model_version"] for row in rows(config.warehouse, "models"))
    train(release.context(config, version=52))
    shutil.rmtree(tmp_path / "warehouse" / "model_artifacts" / champion / EVALUATION)
    found, notices = _evaluated(release, config, version=53)
    (line,) = [line for line in notices if "champion" in line]
    assert f"champion {champion} is not compared" in line
    assert "does not exist" in line
    assert "champion" not in {row[c.SCORER] for row in found}
    assert "model" in {row[c.SCORER] for row in found}


def test_a_champion_that_has_seen_the_test_is_left_out(release: Release, tmp_path: Path) -> None:
    config = _retrained(release, tmp_path / "warehouse")
    # As after a run with an earlier --as-of: the cut of today lies before the one that the champion learnt until.
    snapshots = [
        row | {c.AS_OF: row[c.AS_OF] - dt.timedelta(days=1)} if row["snapshot"] == EVALUATION else row
        for row in rows(config.warehouse, "snapshots")
    ]
    store = TableStore(release.spark, config.warehouse)
    store.replace_few(schemas.SNAPSHOTS, snapshots, Transaction("by-hand", 52))
    assert read(config.warehouse, "snapshots").num_rows == len(snapshots)
    found, notices = _evaluated(release, config)
    (line,) = [line for line in notices if "champion" in line]
    assert "it learnt from events until" in line
    assert "champion" not in {row[c.SCORER] for row in found}
