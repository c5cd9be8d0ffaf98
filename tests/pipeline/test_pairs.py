"""Scores of given pairs in SQL are those of the lists, bit for bit, and NULL where there is nothing to score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from recbatch.context import StageContext
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.pairs import score_udf, user_histories
from recbatch.stages.score import load_scorer, register_pair_scoring
from recbatch.tables import schemas
from tests.pipeline.support import Release, read, rows

QUERY = """
    SELECT p.user_id, p.item_id, p.score AS listed, recbatch_score(h.history, p.item_id) AS score
    FROM pairs p LEFT JOIN user_histories h USING (user_id)
"""
SOME = 400


@pytest.fixture(scope="module")
def context(release: Release) -> StageContext:
    return StageContext.read_only(release.spark, release.config)


@pytest.fixture(scope="module")
def registered(context: StageContext) -> Iterator[None]:
    register_pair_scoring(context)
    yield
    for view in ("user_histories", "pairs"):
        context.spark.catalog.dropTempView(view)
    context.spark.sql("DROP TEMPORARY FUNCTION recbatch_score")


@pytest.fixture(scope="module")
def scorer(release: Release, context: StageContext) -> Scorer:
    (model,) = rows(release.warehouse, "models")
    return load_scorer(context, model["path"])


def _bits(column: pa.ChunkedArray) -> list[int]:
    bits: list[int] = column.to_numpy().view(np.int32).tolist()
    return bits


@pytest.mark.usefixtures("registered")
def test_pairs_in_sql_have_the_bits_of_the_published_scores(release: Release) -> None:
    lists = release.spark.read.format("delta").load(f"{release.warehouse}/recommendations")
    # Half of a list each, so that users come with many pairs, in an order that has nothing to do with them.
    lists.where("rank % 2 = 0").orderBy(F.xxhash64("user_id", "item_id")).limit(SOME).createOrReplaceTempView("pairs")
    scored = release.spark.sql(QUERY).toArrow()
    assert len(scored) == SOME
    assert scored.schema.field("score").type == pa.float32()
    assert _bits(scored["score"]) == _bits(scored["listed"])


@pytest.mark.usefixtures("registered")
def test_unknown_users_and_items_have_no_score(release: Release) -> None:
    (known,) = release.spark.sql("SELECT user_id FROM user_histories LIMIT 1").collect()
    item = rows(release.warehouse, "items")[0]["item_id"]
    pairs = [(known["user_id"], item), (known["user_id"], "no such item"), ("nobody", item), (known["user_id"], None)]
    frame = release.spark.createDataFrame(
        [(*pair, None) for pair in pairs], "user_id string, item_id string, score float"
    )
    frame.createOrReplaceTempView("pairs")
    scored = {(row["user_id"], row["item_id"]): row["score"] for row in release.spark.sql(QUERY).collect()}
    assert [scored[pair] is None for pair in pairs] == [False, True, True, True]


def test_seen_and_discontinued_items_have_a_score(release: Release, context: StageContext, scorer: Scorer) -> None:
    """All items for some users, as a DataFrame: the best of those that may be listed are the list."""
    sequences = context.tables.read(schemas.USER_SEQUENCES)
    users = user_histories(sequences, scorer).orderBy("user_id").limit(3)
    features = context.tables.read(schemas.ITEM_FEATURES).select("item_id", "eligible")
    score = score_udf(release.spark.sparkContext, scorer)
    pairs = users.crossJoin(features).orderBy(F.rand(seed=5))
    scored = pairs.select("user_id", "item_id", "eligible", score("history", "item_id").alias("score")).toArrow()
    assert scored["score"].null_count == 0
    assert not all(scored["eligible"].to_pylist())
    seen = {(row["user_id"], row["item_id"]) for row in rows(release.warehouse, "events")}
    lists: dict[str, list[tuple[float, bytes]]] = {}
    for row in scored.to_pylist():
        if row["eligible"] and (row["user_id"], row["item_id"]) not in seen:
            lists.setdefault(row["user_id"], []).append((-row["score"], row["item_id"].encode()))
    published = read(release.warehouse, "recommendations").sort_by([("user_id", "ascending"), ("rank", "ascending")])
    expected: dict[str, list[tuple[float, bytes]]] = {user: [] for user in lists}
    for row in published.to_pylist():
        if row["user_id"] in expected:
            expected[row["user_id"]].append((-row["score"], row["item_id"].encode()))
    assert {user: sorted(entries)[: release.config.scoring.k] for user, entries in lists.items()} == expected
