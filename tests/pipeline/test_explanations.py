"""The behaviour that a recommendation is ascribed to matters more to its score than another one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recbatch.model.histories import Sequences
from recbatch.model.recommender import user_vectors
from recbatch.scoring.bundle import Scorer
from recbatch.stages.score import load_scorer
from tests.pipeline.support import Release, read, rows

SAMPLED_ROWS = 1000
LEAST_SHARE = 0.8
_SEED = 5
Indices = NDArray[np.int64]


def share_of_upheld_reasons(scorer: Scorer, release: Release) -> tuple[float, int]:
    """How often taking out the named behaviour costs the score more than another one, and of how many rows.

    The whole score is computed anew from the shortened history: network and co-occurrence.
    """
    generator = np.random.default_rng(_SEED)
    sequences = read(release.warehouse, "user_sequences").sort_by("user_id").combine_chunks()
    histories = scorer.histories(sequences.to_batches()[0])
    user_at = {user: place for place, user in enumerate(sequences["user_id"].to_pylist())}
    item_at = {item: place for place, item in enumerate(scorer.item_ids.to_pylist())}
    lists = read(release.warehouse, "recommendations").sort_by([("user_id", "ascending"), ("rank", "ascending")])
    lists = lists.take(generator.permutation(len(lists))[:SAMPLED_ROWS])
    user = np.array([user_at[one] for one in lists["user_id"].to_pylist()])
    item = np.array([item_at[one] for one in lists["item_id"].to_pylist()])
    because = np.array([item_at[one] for one in lists["because_item_id"].to_pylist()])
    named, other = _positions(histories, scorer.model.config.context_length, user, because, generator)
    kept = other >= 0
    user, item, named, other = user[kept], item[kept], named[kept], other[kept]
    start, stop = histories.offsets[user], histories.offsets[user + 1]
    before = _scores(scorer, histories.select(start, stop), item)
    drop_named = before - _scores(scorer, histories.without(start, stop, named), item)
    drop_other = before - _scores(scorer, histories.without(start, stop, other), item)
    return float((drop_named > drop_other).mean()), len(item)


def _positions(
    histories: Sequences, window: int, user: Indices, because: Indices, generator: np.random.Generator
) -> tuple[Indices, Indices]:
    """The latest behaviour with the named item, and a random other one of the window; -1 where there is no other."""
    named, other = np.full((2, len(user)), -1, dtype=np.int64)
    start, stop = histories.last(window)
    for place, (one, item) in enumerate(zip(user, because, strict=True)):
        positions = np.arange(start[one], stop[one])
        (matches,) = np.nonzero(histories.columns["item_idx"][positions] == item)
        named[place] = positions[matches[-1]]
        rest = positions[positions != named[place]]
        if len(rest):
            other[place] = generator.choice(rest)
    return named, other


def _scores(scorer: Scorer, histories: Sequences, item: Indices) -> NDArray[np.float64]:
    """(N,) the fused score of item[n] after history n, in float64."""
    fusion, items = scorer.fusion, scorer.catalogue.items
    assert fusion is not None
    vectors = user_vectors(scorer.model, items.vectors, histories).double()
    chosen = torch.from_numpy(item)
    scores: NDArray[np.float64] = ((vectors * items.vectors[chosen].double()).sum(1) + items.bias[chosen]).numpy()
    additions = scorer.neighbours.additions(histories, fusion)
    assert additions.values is not None
    added = torch.zeros(len(item), len(items))
    added[additions.entry_rows(), additions.indices.long()] = additions.values
    return scores + added[torch.arange(len(item)), chosen].numpy()


def test_the_named_behaviour_matters_more_than_another(release: Release) -> None:
    (model,) = rows(release.warehouse, "models")
    scorer = load_scorer(release.context(), model["path"])
    share, compared = share_of_upheld_reasons(scorer, release)
    print(f"{share:.1%} of {compared} reasons upheld")
    assert compared >= 500
    assert share >= LEAST_SHARE
