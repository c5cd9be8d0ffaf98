"""Compares the metrics with those of RecTools and ranx on random lists, user by user; `make oracle` runs it.

Prints the largest absolute difference of every metric, over all cutoffs, and exits with 1 if one exceeds 1e-9. Where
definitions differ (`recbatch.evaluation.metrics` says how) the other library's value is converted first:

    RecTools NDCG        divides by the ideal of k relevant items, however many there are: x IDCG(k) / IDCG(min(k, n))
    RecTools, ranx MAP   divide by the n relevant items: x n / min(k, n)
    RecTools PartialAUC  is the whole AUC where its k is the number of irrelevant items

Neither library has a share of the long tail; that is tested against tables worked out by hand alone.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import ranx
from numba.core.errors import NumbaTypeSafetyWarning
from numpy.typing import NDArray
from rectools import Columns
from rectools import metrics as rectools

from recbatch.evaluation.metrics import ABSENT, Truth, auc, catalogue_coverage, ranking_metrics
from recbatch.evaluation.novelty import Known, novelty_metrics

TOLERANCE = 1e-9
CASES = 40
CUTOFFS = (1, 3, 10)
LONGEST = 10
SEED = 20

FloatArray = NDArray[np.float64]
# (library, metric, our values, theirs), both (B,).
Comparison = tuple[str, str, FloatArray, FloatArray]


@dataclass(frozen=True)
class Case:
    """Lists of B users of 1 to LONGEST of I items, what was relevant, and who took what before.

    recommended: (B, LONGEST), ABSENT where a list is shorter. taken: (U, I), whether a user of the past took an item.
    """

    recommended: NDArray[np.int64]
    truth: Truth
    taken: NDArray[np.bool_]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Case:
        n_users, n_items = int(rng.integers(1, 30)), int(rng.integers(LONGEST, 60))
        recommended = np.stack([rng.permutation(n_items)[:LONGEST] for _ in range(n_users)])
        recommended[np.arange(LONGEST) >= rng.integers(1, LONGEST + 1, size=(n_users, 1))] = ABSENT
        counts = rng.integers(1, min(25, n_items), size=n_users)
        relevant = np.concatenate([rng.permutation(n_items)[:count] for count in counts])
        # Of every density, so that some items have all users and some have none.
        taken = rng.random((int(rng.integers(1, 50)), n_items)) < rng.random(n_items) ** 2
        taken[:, 0] = True
        return cls(recommended, Truth(np.concatenate([[0], counts.cumsum()]), relevant), taken)

    @property
    def reco(self) -> pd.DataFrame:
        """As RecTools takes them."""
        user, column = np.nonzero(self.recommended != ABSENT)
        item = self.recommended[user, column]
        return pd.DataFrame({Columns.User: user, Columns.Item: item, Columns.Rank: column + 1})

    @property
    def interactions(self) -> pd.DataFrame:
        """What was relevant, as RecTools takes it."""
        user = np.repeat(np.arange(self.truth.counts.size), self.truth.counts)
        return pd.DataFrame({Columns.User: user, Columns.Item: self.truth.indices})


def with_rectools(case: Case) -> Iterator[Comparison]:
    reco, interactions, counts = case.reco, case.interactions, case.truth.counts
    users = np.arange(counts.size)
    ours = ranking_metrics(case.recommended, case.truth, CUTOFFS)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2.0, LONGEST + 2.0)))
    for k in CUTOFFS:
        reachable = np.minimum(counts, k)
        theirs = {
            "hit_rate": (rectools.HitRate(k), 1.0),
            "recall": (rectools.Recall(k), 1.0),
            "precision": (rectools.Precision(k), 1.0),
            "f1": (rectools.F1Beta(k), 1.0),
            "ndcg": (rectools.NDCG(k), ideal[k - 1] / ideal[reachable - 1]),
            "mrr": (rectools.MRR(k), 1.0),
            "map": (rectools.MAP(k), counts / reachable),
        }
        for name, (metric, factor) in theirs.items():
            values = metric.calc_per_user(reco, interactions).reindex(users).to_numpy()
            yield "RecTools", name, ours[f"{name}@{k}"], values * factor
    first = rectools.Precision(1).calc_per_user(reco, interactions).reindex(users).to_numpy()
    yield "RecTools", "accuracy@1", ours["accuracy@1"], first
    yield from _beyond_accuracy(case)


def _beyond_accuracy(case: Case) -> Iterator[Comparison]:
    taker, item = np.nonzero(case.taken)
    before = pd.DataFrame({Columns.User: taker, Columns.Item: item})
    known = Known(case.taken.sum(axis=0), len(case.taken))
    ours = novelty_metrics(case.recommended, known, CUTOFFS)
    users, n_items = np.arange(len(case.recommended)), case.taken.shape[1]
    for k in CUTOFFS:
        novelty = rectools.MeanInvUserFreq(k).calc_per_user(case.reco, before).reindex(users).to_numpy()
        yield "RecTools", "novelty", ours[f"novelty@{k}"], novelty
        coverage = rectools.CatalogCoverage(k, normalize=True).calc(case.reco, np.arange(n_items))
        yield (
            "RecTools",
            "coverage",
            np.array([catalogue_coverage(case.recommended[:, :k], n_items)]),
            np.array([coverage]),
        )


def auc_with_rectools(rng: np.random.Generator) -> Iterator[Comparison]:
    """Complete rankings; PartialAUC has one k for all users, so that all have as many relevant items."""
    n_users, n_items = int(rng.integers(1, 20)), int(rng.integers(3, 40))
    n_relevant = int(rng.integers(1, n_items))
    ranking = np.stack([rng.permutation(n_items) for _ in range(n_users)])
    columns = np.stack([rng.permutation(n_items)[:n_relevant] for _ in range(n_users)])
    relevant = np.take_along_axis(ranking, columns, axis=1).ravel()
    truth = Truth(np.arange(n_users + 1) * n_relevant, relevant)
    ours = auc(columns.ravel(), np.zeros_like(relevant), np.full(n_users, n_items), truth)
    case = Case(ranking, truth, np.empty((0, n_items), dtype=np.bool_))
    values = rectools.PartialAUC(n_items - n_relevant).calc_per_user(case.reco, case.interactions)
    yield "RecTools", "auc", ours, values.reindex(np.arange(n_users)).to_numpy()


def with_ranx(case: Case) -> Iterator[Comparison]:
    bounds, counts = case.truth.indptr, case.truth.counts
    relevant = {
        str(user): {str(item): 1 for item in case.truth.indices[bounds[user] : bounds[user + 1]]}
        for user in range(counts.size)
    }
    # Scores that fall with the rank, so that nothing ties.
    lists = {
        str(user): {str(item): float(LONGEST - at) for at, item in enumerate(items) if item != ABSENT}
        for user, items in enumerate(case.recommended)
    }
    names = ("hit_rate", "recall", "precision", "f1", "ndcg", "mrr", "map")
    wanted = [f"{name}@{k}" for name in names for k in CUTOFFS]
    run = ranx.Run(lists)
    ranx.evaluate(ranx.Qrels(relevant), run, wanted, return_mean=False)
    ours = ranking_metrics(case.recommended, case.truth, CUTOFFS)
    for key in wanted:
        name, _, k = key.partition("@")
        values = np.array([run.scores[key][str(user)] for user in range(counts.size)])
        yield "ranx", name, ours[key], values * (counts / np.minimum(counts, int(k)) if name == "map" else 1.0)


def main() -> int:
    """Exit code 0 where all agree, else 1."""
    # ranx has indices of arrays compiled as unsigned integers.
    warnings.filterwarnings("ignore", category=NumbaTypeSafetyWarning)
    # RecTools fills values in a way that a later pandas will not have.
    warnings.filterwarnings("ignore", category=FutureWarning)
    rng = np.random.default_rng(SEED)
    largest: dict[tuple[str, str], float] = defaultdict(float)
    compared: dict[tuple[str, str], int] = defaultdict(int)
    for _ in range(CASES):
        case = Case.random(rng)
        for library, metric, ours, theirs in (*with_rectools(case), *with_ranx(case), *auc_with_rectools(rng)):
            # A value that the other library does not have is no agreement.
            difference = np.nan_to_num(np.abs(ours - theirs), nan=np.inf)
            largest[library, metric] = max(largest[library, metric], float(difference.max()))
            compared[library, metric] += difference.size
    print(f"{'library':<10}{'metric':<12}{'largest difference':>20}{'values':>9}")
    for (library, metric), difference in sorted(largest.items()):
        print(f"{library:<10}{metric:<12}{difference:>20.1e}{compared[library, metric]:>9}")
    wrong = [f"{library} {metric}" for (library, metric), difference in largest.items() if difference > TOLERANCE]
    print(f"beyond {TOLERANCE:.0e}: {', '.join(sorted(wrong)) or 'none'} in {CASES} random cases")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
