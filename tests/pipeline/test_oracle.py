"""The published lists are those of a brute force over all users and items, however the work is laid out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from recbatch.model.recommender import user_vectors
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.recommend import create_meters, prepared, recommend
from recbatch.scoring.shipping import shipped_to_workers
from recbatch.stages.score import load_scorer
from recbatch.tables import schemas
from tests.pipeline.support import Release, read, rows

LAYOUTS = [(1, 256, 256), (3, 4096, 17), (8, 256, 5)]  # partitions, items a tile, users a batch


@dataclass(frozen=True)
class Oracle:
    """scores: (U, I) float64 of the module's formula. bought, eligible: (U, I) and (I,) bool, from the raw facts."""

    user_ids: list[str]
    item_ids: list[str]
    scores: NDArray[np.float64]
    bought: NDArray[np.bool_]
    eligible: NDArray[np.bool_]

    def best(self, user: int, k: int, *, filter_viewed: bool) -> list[int]:
        """Item positions by score descending, then item id in the byte order of UTF-8."""
        allowed = self.eligible & ~self.bought[user] if filter_viewed else self.eligible
        candidates: list[int] = np.flatnonzero(allowed).tolist()
        return sorted(candidates, key=lambda i: (-self.scores[user, i], self.item_ids[i].encode()))[:k]


@pytest.fixture(scope="module")
def scorer(release: Release) -> Scorer:
    (model,) = rows(release.warehouse, "models")
    return load_scorer(release.context(), model["path"])


@pytest.fixture(scope="module")
def oracle(release: Release, scorer: Scorer) -> Oracle:
    sequences = read(release.warehouse, "user_sequences").sort_by("user_id").combine_chunks()
    histories = scorer.histories(sequences.to_batches()[0])
    items = scorer.catalogue.items
    users = user_vectors(scorer.model, items.vectors, histories).numpy().astype(np.float64)
    scores = users @ items.vectors.numpy().astype(np.float64).T + items.bias.numpy().astype(np.float64)
    _add_cooccurrence(scores, release, scorer, sequences["item_idx"].to_pylist())
    item_ids = scorer.item_ids.to_pylist()
    user_ids = sequences["user_id"].to_pylist()
    bought = {(row["user_id"], row["item_id"]) for row in rows(release.warehouse, "events")}
    products = pq.read_table(release.slice.folder / "products").to_pylist()
    offered = {str(row["product_id"]) for row in products if row["discontinued_on"] is None}
    return Oracle(
        user_ids,
        item_ids,
        scores,
        np.array([[(user, item) in bought for item in item_ids] for user in user_ids]),
        np.array([item in offered for item in item_ids]),
    )


def _add_cooccurrence(
    scores: NDArray[np.float64], release: Release, scorer: Scorer, histories: list[list[int]]
) -> None:
    """lam * log(1 + c(u, i) / eps), written out as the documentation states it."""
    fusion = scorer.fusion
    assert fusion is not None
    neighbours = {
        row["item_idx"]: list(zip(row["neighbours"], row["weights"], strict=True))
        for row in rows(release.warehouse, "item_neighbours")
    }
    for user, history in enumerate(histories):
        found: dict[int, float] = defaultdict(float)
        for position, item in enumerate(reversed(history[-fusion.behaviours :])):
            for neighbour, weight in neighbours.get(item, []):
                found[neighbour] += fusion.decay**position * weight
        for item, total in found.items():
            scores[user, scorer.position[item]] += fusion.lam * np.log1p(total / fusion.eps)


def _score_again(
    release: Release,
    scorer: Scorer,
    layout: tuple[int, int, int],
    *,
    filter_viewed: bool = True,
    item_matrix: str = "auto",
    item_shards: int = 1,
) -> list[tuple[object, ...]]:
    partitions, tile_items, batch_users = layout
    changes = {
        "batch_users": batch_users,
        "filter_viewed": filter_viewed,
        "item_matrix": item_matrix,
        "item_shards": item_shards,
    }
    section = release.config.scoring.model_copy(update=changes)
    tiled = replace(scorer, catalogue=replace(scorer.catalogue, tile_items=tile_items))
    users = prepared(release.context().tables.read(schemas.USER_SEQUENCES), scorer, section)
    spark = release.spark.sparkContext
    with shipped_to_workers(spark, tiled, section) as shipped:
        return _entries(recommend(users, shipped, section, partitions, create_meters(spark)).toArrow())


def _entries(lists: pa.Table) -> list[tuple[object, ...]]:
    """Rows in the order of user and rank, with the bits of the score."""
    lists = lists.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    bits = lists["score"].to_numpy().view(np.int32).tolist()
    names = ("user_id", "rank", "item_id", "because_item_id", "reason", "user_bucket")
    return list(zip(*(lists[name].to_pylist() for name in names), bits, strict=True))


def _compare(lists: pa.Table, oracle: Oracle, k: int, *, filter_viewed: bool) -> int:
    """Assert that the lists are the oracle's, and return at how many places they differ for lack of float32 digits."""
    assert sorted(set(lists["user_id"].to_pylist())) == oracle.user_ids
    at = {item: position for position, item in enumerate(oracle.item_ids)}
    by_user: dict[str, list[tuple[int, str, float]]] = defaultdict(list)
    for user, rank, item, score in zip(
        *(lists[name].to_pylist() for name in ("user_id", "rank", "item_id", "score")), strict=True
    ):
        by_user[user].append((rank, item, score))
    unresolved = 0
    for number, user in enumerate(oracle.user_ids):
        entries = sorted(by_user[user])
        best = oracle.best(number, k, filter_viewed=filter_viewed)
        assert len(entries) == len(best), user
        exact = oracle.scores[number]
        np.testing.assert_allclose([score for *_, score in entries], exact[[at[item] for _, item, _ in entries]], 1e-5)
        for (_, item, _), wanted in zip(entries, best, strict=True):
            if at[item] != wanted:
                unresolved += 1
                resolution = 2 * np.spacing(np.float32(np.abs(exact[wanted])))
                assert abs(exact[at[item]] - exact[wanted]) <= resolution, (user, item, oracle.item_ids[wanted])
        for (_, item, score), (_, after, lower) in pairwise(entries):
            assert score > lower or (score == lower and item.encode() < after.encode()), (user, item, after)
    return unresolved


def test_published_lists_are_those_of_the_brute_force(release: Release, oracle: Oracle) -> None:
    lists = read(release.warehouse, "recommendations")
    assert not oracle.eligible.all()
    unresolved = _compare(lists, oracle, release.config.scoring.k, filter_viewed=True)
    assert unresolved <= 0.01 * len(lists)


def test_workers_that_map_the_item_matrix_make_the_same_lists(release: Release, scorer: Scorer) -> None:
    mapped = _score_again(release, scorer, LAYOUTS[0], item_matrix="mapped")
    assert mapped == _entries(read(release.warehouse, "recommendations"))


def test_parts_of_the_items_make_the_same_lists(release: Release, scorer: Scorer) -> None:
    merged = _score_again(release, scorer, LAYOUTS[1], item_shards=3)
    assert merged == _entries(read(release.warehouse, "recommendations"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_the_work_does_not_show_in_the_lists(
    release: Release, scorer: Scorer, layout: tuple[int, int, int]
) -> None:
    assert _score_again(release, scorer, layout) == _entries(read(release.warehouse, "recommendations"))


def test_lists_with_what_users_have_are_those_of_the_brute_force(
    release: Release, scorer: Scorer, oracle: Oracle
) -> None:
    entries = _score_again(release, scorer, LAYOUTS[1], filter_viewed=False)
    names = ("user_id", "rank", "item_id", "because_item_id", "reason", "user_bucket", "bits")
    lists = pa.table({name: [entry[place] for entry in entries] for place, name in enumerate(names)})
    scores = lists["bits"].to_numpy().astype(np.int32).view(np.float32)
    lists = lists.append_column("score", pa.array(scores))
    unresolved = _compare(lists, oracle, release.config.scoring.k, filter_viewed=False)
    assert unresolved <= 0.01 * len(lists)
    bought = {(row["user_id"], row["item_id"]) for row in rows(release.warehouse, "events")}
    assert bought & {(str(user), str(item)) for user, _, item, *_ in entries}
    published = read(release.warehouse, "recommendations")
    pairs = zip(published["user_id"].to_pylist(), published["item_id"].to_pylist(), strict=True)
    assert not bought & set(pairs)
