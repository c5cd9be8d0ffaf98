"""How far recommendation lists reach beyond what everybody knows: one value a user, vectorised over users.

With `c_i` the users who took item `i` before the cut, of `U` users in all, and `L` the first k items of a list:

    novelty@k    sum_{i in L} -log2(max(c_i, 1) / U) / |L|      mean self-information, in bits               [Z10, VC11]
    aplt@k       |{i in L: i is in the long tail}| / |L|        average percentage of long-tail items, a share [ABM19]

The short head is the fifth of the items that most users took, of those that any took (rounded up, and with whatever is
as popular as its last one, so that no order decides); all other items are the long tail. An item that nobody took
counts as if one user had: its self-information would be infinite. `L` holds the ranks that are there: a short list is
not punished, other than in precision. A list without an item tells nothing, and has 0 in both.

[Z10] Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107(10), 2010. [VC11]
Vargas and Castells, Rank and relevance in novelty and diversity metrics for recommender systems, RecSys 2011. [ABM19]
Abdollahpouri, Burke and Mobasher, Managing popularity bias in recommender systems with personalized re-ranking, FLAIRS
2019; the fifth is that of its figure 1.

RecTools' MeanInvUserFreq agrees on novelty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbatch.evaluation.metrics import ABSENT, FloatArray, IntArray, checked_top

HEAD_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Known:
    """How well items were known before the cut.

    `item_users` (I,): distinct users who took the item. `users`: all who took any.
    Raises ValueError if there is no user, or an item has fewer than 0 or more than all of them.
    """

    item_users: IntArray
    users: int

    def __post_init__(self) -> None:
        if self.users < 1:
            raise ValueError(f"novelty is relative to the users before the cut; there are {self.users}")
        least, most = self.item_users.min(initial=0), self.item_users.max(initial=0)
        if least < 0 or most > self.users:
            raise ValueError(f"an item has 0 to all {self.users} users; found {least if least < 0 else most}")

    @cached_property
    def self_information(self) -> FloatArray:
        """-log2(max(c_i, 1) / U) in bits, (I,)."""
        return np.asarray(np.log2(self.users) - np.log2(np.maximum(self.item_users, 1)), dtype=np.float64)

    @cached_property
    def in_long_tail(self) -> NDArray[np.bool_]:
        """Whether an item is in the long tail, (I,)."""
        taken = np.sort(self.item_users[self.item_users > 0])[::-1]
        head = int(np.ceil(HEAD_SHARE * taken.size))
        least = taken[head - 1] if head else 1
        return np.asarray(self.item_users < least, dtype=np.bool_)


def novelty_metrics(recommended: IntArray, known: Known, cutoffs: Sequence[int]) -> dict[str, FloatArray]:
    """Per-user `novelty@k` (0 or more, bits) and `aplt@k` (within [0, 1]) at every cutoff, float64 (B,) each.

    `recommended` (B, K): item_idx below I, best first; -1 (absent) fills lists shorter than K.
    Raises ValueError if a list repeats an item or holds one that `known` lacks, or a cutoff is not within 1..K.
    """
    if recommended.ndim != 2 or recommended.shape[0] == 0:
        raise ValueError(f"recommended must be (users, ranks) with at least one user; it is {recommended.shape}")
    top = checked_top(recommended, cutoffs)
    if top.max() >= known.item_users.size:
        raise ValueError(f"item_idx {top.max()} is not among the {known.item_users.size} items that are known")
    there = top != ABSENT
    listed = np.maximum(there.cumsum(axis=1), 1)
    metrics: dict[str, FloatArray] = {}
    for name, values in (("novelty", known.self_information), ("aplt", known.in_long_tail)):
        # Index -1 takes the last item's value; `there` puts it out again.
        sums = np.where(there, values[top], 0.0).cumsum(axis=1)
        metrics |= {f"{name}@{k}": sums[:, k - 1] / listed[:, k - 1] for k in cutoffs}
    return metrics
