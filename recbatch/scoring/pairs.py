"""Scores of given (user, item) pairs inside a query: those of the lists, bit for bit, without making lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pyspark import SparkContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from recbatch.allocator import keep_freed_memory
from recbatch.config.sections import ScoringSection
from recbatch.model.recommender import user_vectors
from recbatch.ranking.topk import pair_scores
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.recommend import prepared
from recbatch.scoring.shipping import shipped_for_session
from recbatch.tables import columns as c

if TYPE_CHECKING:
    from pyspark.sql._typing import UserDefinedFunctionLike

HISTORY = "history"
_BEHAVIOURS = (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
_USERS_AT_A_TIME = 256  # the additions of some thousand would take gigabytes


def score_udf(spark: SparkContext, scorer: Scorer) -> UserDefinedFunctionLike:
    """A pandas UDF score(history, item_id) -> float; it works as long as the session does.

    history: a struct of item_idx, event_type, event_time, price and quantity, arrays of equal length as in
    `user_sequences`; `user_histories` makes it. item_id: string. The result is the reference score, also of items that
    the user has and of those that may not be recommended; NULL where the history is NULL or the item unknown.

    The scorer lies in a temporary file of the driver until this process ends; the workers of a host map one copy of it.
    """
    shipped = shipped_for_session(spark, scorer)

    def score(batches: Iterator[tuple[pd.DataFrame, pd.Series]]) -> Iterator[pd.Series]:
        # As for lists: every worker computes on the one core that Spark counts for its task.
        torch.set_num_threads(1)
        keep_freed_memory()
        opened = shipped.open()
        for history, item_id in batches:
            yield pd.Series(score_pairs(opened, history, item_id))

    # The stubs know no tuple of a frame and a series.
    udf: UserDefinedFunctionLike = pandas_udf(score, "float")  # type: ignore[call-overload]
    return udf


def user_histories(sequences: DataFrame, scorer: Scorer) -> DataFrame:
    """(user_id, history) of all rows of `user_sequences`: as much of them as the model reads."""
    users = prepared(sequences, scorer, ScoringSection())
    return users.select(c.USER_ID, F.struct(*_BEHAVIOURS).alias(HISTORY))


def score_pairs(scorer: Scorer, history: pd.DataFrame, item_id: pd.Series) -> NDArray[np.float32]:
    """(N,): the scores of N pairs, NaN for an unknown user or item. Each distinct history is encoded once.

    history: N rows, an array in every column, None in all of them for an unknown user. item_id: N strings or None.

    Raises:
        ModelError: a score is not finite.
        ValueError: `history` lacks a column, or its arrays differ in length or type from those of `user_sequences`.
    """
    scores = np.full(len(item_id), np.nan, np.float32)
    row, batch = _distinct(history)
    place = _places(scorer, item_id)
    pairs = np.flatnonzero((row >= 0) & (place >= 0))
    pairs = pairs[np.argsort(row[pairs], kind="stable")]
    starts = np.arange(0, batch.num_rows, _USERS_AT_A_TIME)
    bounds = np.searchsorted(row[pairs], [*starts, batch.num_rows])
    for start, low, high in zip(starts.tolist(), bounds[:-1], bounds[1:], strict=True):
        some = pairs[low:high]
        if not len(some):
            continue
        histories = scorer.histories(batch.slice(start, _USERS_AT_A_TIME))
        items = scorer.catalogue.items
        users = user_vectors(scorer.model, items.vectors, histories)
        additions = None if scorer.fusion is None else scorer.neighbours.additions(histories, scorer.fusion)
        scores[some] = pair_scores(users, items, row[some] - start, place[some], additions)
    return scores


def _distinct(history: pd.DataFrame) -> tuple[NDArray[np.int64], pa.RecordBatch]:
    """(N,) the number of every history among the distinct ones, -1 for None; and those, as `user_sequences` has them.

    A join brings the pairs of a user one after another or all over the batch: comparing bytes costs little either way.
    """
    missing = [name for name in _BEHAVIOURS if name not in history]
    if missing:
        raise ValueError(f"a history is a struct of {', '.join(_BEHAVIOURS)}: {', '.join(missing)} is missing")
    numbers: dict[bytes, int] = {}
    found: list[tuple[NDArray[Any], ...]] = []
    row = np.full(len(history), -1, np.int64)
    for place, arrays in enumerate(zip(*(history[name] for name in _BEHAVIOURS), strict=True)):
        if arrays[0] is None:
            continue
        # The bytes of a behaviour are as many in every history, so that no two run together to the same key.
        key = b"".join(array.tobytes() for array in arrays)
        row[place] = numbers.setdefault(key, len(found))
        if row[place] == len(found):
            found.append(arrays)
    return row, pa.RecordBatch.from_arrays(
        [_as_lists([arrays[place] for arrays in found]) for place in range(len(_BEHAVIOURS))], names=list(_BEHAVIOURS)
    )


def _as_lists(arrays: list[NDArray[Any]]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int32)
    values = pa.array(np.concatenate(arrays)) if arrays else pa.nulls(0)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _places(scorer: Scorer, item_id: pd.Series) -> NDArray[np.int64]:
    """(N,): the place of every item in the scorer, -1 where it is unknown."""
    wanted = pa.array(item_id, pa.string()).dictionary_encode()
    # The table is made of the ids of the batch and not of all items, which are many more.
    number = pc.index_in(scorer.item_ids, value_set=wanted.dictionary)
    known = np.flatnonzero(number.is_valid().to_numpy(zero_copy_only=False))
    places = np.full(len(wanted.dictionary) + 1, -1, np.int64)  # the last one is that of NULL
    places[number.drop_null().to_numpy()] = known
    found: NDArray[np.int64] = places[wanted.indices.fill_null(len(wanted.dictionary)).to_numpy()]
    return found
