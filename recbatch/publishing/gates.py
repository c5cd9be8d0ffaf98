"""Figures of the staged lists that decide whether they may be released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import PublishingSection
from recbatch.errors import GateFailedError
from recbatch.tables import columns as c


@dataclass(frozen=True)
class GateResult:
    """One figure beside the least that it may be."""

    gate: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value >= self.limit


@dataclass(frozen=True)
class StagedFigures:
    """What the staged lists hold: users with a list, rows, distinct items."""

    users: int
    rows: int
    items: int


def measure(staged: DataFrame) -> StagedFigures:
    """One pass over the staged lists; one row a user and item comes out of it, counted where it is."""
    lists = staged.where(F.col(c.RANK) == 1).agg(F.count(F.lit(1)).alias("users"))
    items = staged.groupBy(c.ITEM_ID).agg(F.count(F.lit(1)).alias("n"))
    rows = items.agg(F.coalesce(F.sum("n"), F.lit(0)).alias("rows"), F.count(F.lit(1)).alias("items"))
    found = rows.crossJoin(lists).first()
    if found is None:
        raise RuntimeError("an aggregate without keys gave no row")
    return StagedFigures(found["users"], found["rows"], found["items"])


def judge(
    figures: StagedFigures, *, known_users: int, eligible_items: int, k: int, section: PublishingSection
) -> list[GateResult]:
    """Every gate with its value and limit; shares are between 0 and 1, of an empty whole 0."""
    longest = min(k, eligible_items)
    return [
        GateResult("user_coverage", _share(figures.users, known_users), section.min_user_coverage),
        GateResult("mean_list_length", _share(figures.rows, figures.users * longest), section.min_mean_list_length),
        GateResult("item_coverage", _share(figures.items, eligible_items), section.min_item_coverage),
    ]


def require(results: Sequence[GateResult]) -> None:
    """Raise GateFailedError naming every figure that missed its limit."""
    missed = [result for result in results if not result.passed]
    if missed:
        raise GateFailedError(
            "; ".join(f"gate {one.gate}: {one.value:.4f} is below its limit {one.limit}" for one in missed),
            remedy="nothing was published; the staged tables show what was scored",
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
