"""The best users of chosen items: what the lists of all users, long enough to hold every item, say about them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from recbatch.errors import UsageError
from recbatch.stages.score import score
from recbatch.tables.ledger import StageResult
from tests.pipeline.support import Release, read

SIZE = 10
Lists = dict[str, list[tuple[int, str, float]]]


@pytest.fixture(scope="module")
def chosen(release: Release) -> list[str]:
    """An item that many users' lists hold, one that few do, and one in the middle."""
    counts = read(release.warehouse, "recommendations").group_by("item_id").aggregate([("item_id", "count")])
    ordered = counts.sort_by([("item_id_count", "ascending"), ("item_id", "ascending")])["item_id"].to_pylist()
    return [ordered[-1], ordered[0], ordered[len(ordered) // 2]]


def _score(release: Release, warehouse: Path, items: list[str], *overrides: str, version: int = 7) -> StageResult:
    asked = [f"scoring.audience_items=[{', '.join(repr(item) for item in items)}]", f"scoring.audience_size={SIZE}"]
    return score(release.context(release.slice.config(warehouse, *asked, *overrides), version=version))


def _audiences(warehouse: Path) -> Lists:
    lists: Lists = defaultdict(list)
    for row in (
        read(warehouse, "staged_audiences").sort_by([("item_id", "ascending"), ("rank", "ascending")]).to_pylist()
    ):
        lists[row["item_id"]].append((row["rank"], row["user_id"], row["score"]))
    return lists


def _expected(warehouse: Path, items: list[str]) -> Lists:
    competing: dict[str, list[tuple[float, bytes, str]]] = defaultdict(list)
    for row in read(warehouse, "staged_recommendations").to_pylist():
        if row["item_id"] in items:
            competing[row["item_id"]].append((-row["score"], row["user_id"].encode(), row["user_id"]))
    return {
        item: [(rank, user, -score) for rank, (score, _, user) in enumerate(sorted(entries)[:SIZE], start=1)]
        for item, entries in competing.items()
    }


def test_audiences_are_the_best_by_the_scores_in_users_own_lists(
    release: Release, chosen: list[str], tmp_path: Path
) -> None:
    """However the work is cut: workers that write themselves, groups of buckets, item shards written by Spark."""
    release.copy(tmp_path / "warehouse")
    _score(release, tmp_path / "warehouse", chosen, "scoring.k=100000")
    found = _audiences(tmp_path / "warehouse")
    assert found == _expected(tmp_path / "warehouse", chosen)
    assert {len(entries) for entries in found.values()} == {SIZE}
    for version, cut in enumerate(("scoring.commit_seconds=0.000001", "scoring.item_shards=2"), start=8):
        result = _score(release, tmp_path / "warehouse", chosen, cut, version=version)
        assert result.row_counts["users_scored"] == result.row_counts["users"]
        assert _audiences(tmp_path / "warehouse") == found
        # The lists themselves are none the worse for it.
        columns = ["user_id", "rank", "item_id", "score"]
        order = [("user_id", "ascending"), ("rank", "ascending")]
        assert read(tmp_path / "warehouse", "staged_recommendations").select(columns).sort_by(order) == read(
            release.warehouse, "recommendations"
        ).select(columns).sort_by(order)


def test_what_is_no_longer_asked_for_does_not_stay(release: Release, chosen: list[str], tmp_path: Path) -> None:
    release.copy(tmp_path / "warehouse")
    _score(release, tmp_path / "warehouse", chosen[:1])
    assert set(_audiences(tmp_path / "warehouse")) == set(chosen[:1])
    _score(release, tmp_path / "warehouse", [], version=8)
    assert read(tmp_path / "warehouse", "staged_audiences").num_rows == 0


def test_an_unknown_item_is_named_before_anything_is_written(release: Release, tmp_path: Path) -> None:
    release.copy(tmp_path / "warehouse")
    before = sorted(path for path in (tmp_path / "warehouse").rglob("*.json"))
    with pytest.raises(UsageError, match=r"scoring\.audience_items: item 'no such item'"):
        _score(release, tmp_path / "warehouse", ["no such item"])
    assert sorted(path for path in (tmp_path / "warehouse").rglob("*.json")) == before
