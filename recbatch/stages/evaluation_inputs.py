"""What the stage `evaluate` reads as of the evaluation cut: items, users, the candidate and the champion before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray
from pyspark.sql import functions as F

from recbatch.context import StageContext
from recbatch.errors import InputContractError, ModelError
from recbatch.evaluation.novelty import Known
from recbatch.evaluation.slices import Attribute
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.ranking.csr import Csr
from recbatch.stages.inputs import (
    CHAMPION,
    EVALUATION,
    features_of_model,
    load_artifact,
    read_parameters,
    read_popularity,
    sampled_buckets,
    snapshot_times,
)
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.transforms.attributes import category_fields, coded_fields
from recbatch.transforms.parameters import Parameters


@dataclass(frozen=True)
class Items:
    """What was known of the I items at the evaluation cut.

    rows: of `evaluation_item_features`, by item_idx. fitted: what their numbers are normalised by. eligible,
    seen_before: (I,); the latter whether the log knew the item before its last `features.recent_days`.
    """

    rows: pa.Table
    fitted: Mapping[str, Parameters]
    popularity: Popularity
    known: Known
    eligible: NDArray[np.bool_]
    seen_before: NDArray[np.bool_]
    attributes: Mapping[str, Attribute]
    tie_rank: torch.Tensor


@dataclass(frozen=True)
class Tested:
    """An artifact of the past, and the items as it takes them."""

    loaded: Artifact
    features: ItemFeatures


def latest_candidate(context: StageContext) -> dict[str, Any]:
    rows = read_arrow(context.tables, schemas.CANDIDATES).to_pylist()
    return {**max(rows, key=lambda row: row[c.SEQUENCE_NUMBER])}


def read_items(context: StageContext) -> Items:
    tables = context.tables
    rows = read_arrow(tables, schemas.EVALUATION_ITEM_FEATURES).sort_by(c.ITEM_IDX)
    popularity = read_popularity(tables, schemas.EVALUATION_ITEM_POPULARITY, len(rows))
    return Items(
        rows,
        read_parameters(tables, schemas.EVALUATION_NORMALIZATION),
        popularity,
        Known(popularity.ever.numpy().astype(np.int64), tables.rows(schemas.EVALUATION_USER_SEQUENCES)),
        np.asarray(rows[c.ELIGIBLE].to_pylist(), dtype=np.bool_),
        _seen_before(context, rows[c.ITEM_ID]),
        _attributes(context, rows),
        # Ids must not decide between equal scores: in public data their order leaks what is popular.
        torch.from_numpy(np.random.default_rng(context.config.seed).permutation(len(rows))),
    )


def _seen_before(context: StageContext, item_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which items have an event before the last `features.recent_days` before the cut, (I,)."""
    recent = dt.timedelta(days=context.config.features.recent_days)
    moment = snapshot_times(context.tables)[EVALUATION] - recent
    # The date spares reading the files of later days.
    earlier = (F.col(c.EVENT_DATE) <= F.lit(moment.astimezone(dt.UTC).date())) & (F.col(c.EVENT_TIME) < F.lit(moment))
    found = context.tables.read(schemas.EVENTS).where(earlier).select(c.ITEM_ID).distinct().toArrow()
    seen: NDArray[np.bool_] = pc.is_in(item_ids, value_set=found[c.ITEM_ID]).to_numpy().astype(np.bool_)
    return seen


def _attributes(context: StageContext, rows: pa.Table) -> dict[str, Attribute]:
    """The category attributes of the items by name."""
    values: dict[str, dict[int, str]] = {}
    for row in read_arrow(context.tables, schemas.CATEGORY_INDEX).to_pylist():
        values.setdefault(row[c.FIELD], {})[row[c.CODE]] = row[c.VALUE]
    source = context.config.input.items
    names = [] if source is None else coded_fields(source.attributes)
    shown = [] if source is None else category_fields(source.attributes)
    columns = ItemFeatures.from_arrow(rows).categories
    if len(names) != len(columns):
        raise InputContractError(
            f"items have {len(columns)} category and text attributes, the configuration {len(names)}",
            remedy="run `recbatch features` after a change of input.items.attributes",
        )
    return {
        name: Attribute(indptr.numpy(), codes.numpy(), values.get(name, {}))
        for name, (indptr, codes) in zip(names, columns, strict=True)
        if name in shown
    }


def read_users(context: StageContext) -> tuple[Sequences, Csr, Csr]:
    """Histories, seen items and later items of the sampled users that have both, in the same order."""
    histories, seen, targets = [], [], []
    for bucket in sampled_buckets(context.config):
        past = read_arrow(context.tables, schemas.EVALUATION_USER_SEQUENCES, bucket=bucket).sort_by(c.USER_ID)
        later = read_arrow(context.tables, schemas.EVALUATION_TARGETS, bucket=bucket)
        at = pc.index_in(past[c.USER_ID], value_set=later[c.USER_ID])
        both = pc.is_valid(at)
        past, later = past.filter(both).combine_chunks(), later.take(at.filter(both)).combine_chunks()
        if len(past):
            histories.append(Sequences.from_arrow(past.to_batches()[0]))
            seen.append(past[c.SEEN].chunk(0))
            targets.append(later[c.TARGETS].chunk(0))
    return Sequences.concatenate(histories), _csr(seen), _csr(targets)


def _csr(lists: list[pa.ListArray]) -> Csr:
    sizes = [np.diff(np.asarray(one.offsets, dtype=np.int64)) for one in lists]
    indptr = np.concatenate([[0], np.concatenate([[], *sizes]).cumsum()]).astype(np.int64)
    indices = np.concatenate([np.empty(0, np.int32), *(one.flatten().to_numpy() for one in lists)])
    return Csr(torch.from_numpy(indptr), torch.from_numpy(indices))


def load_past(context: StageContext, model: Mapping[str, Any], items: Items) -> Tested:
    """The twin of a model's artifact that knows only the past, and the items as it takes them."""
    path = model[c.MODEL_PATH].rsplit("/", 1)[0] + f"/{EVALUATION}"
    loaded = load_artifact(context.spark, path, items.rows[c.ITEM_ID].to_pylist())
    trained, n_types = loaded.model.shape.n_event_types, len(context.config.input.events.types())
    if trained != n_types:
        raise ModelError(f"model '{path}' knows {trained} event types, the tables have {n_types}", remedy="train again")
    return Tested(loaded, features_of_model(items.rows, items.fitted, loaded))


def load_champion(context: StageContext, candidate: Mapping[str, Any], items: Items) -> Tested | None:
    """The model that `score` used until now, or None where there is none or it cannot be compared, which is said."""
    if context.tables.version(schemas.MODELS) is None:
        return None
    rows = read_arrow(context.tables, schemas.MODELS).to_pylist()
    # A candidate that is evaluated again is no rival of its own.
    rivals = [row for row in rows if row[c.STATUS] == CHAMPION and row[c.MODEL_VERSION] != candidate[c.MODEL_VERSION]]
    if not rivals:
        return None
    champion = max(rivals, key=lambda row: row[c.SEQUENCE_NUMBER])
    try:
        tested = load_past(context, champion, items)
        _require_ignorance(context, champion, tested.loaded)
    except ModelError as error:
        context.progress.notify(f"champion {champion[c.MODEL_VERSION]} is not compared: {error}")
        return None
    return tested


def _require_ignorance(context: StageContext, champion: Mapping[str, Any], loaded: Artifact) -> None:
    """Raise ModelError unless the twin of the champion knows nothing of what came after the evaluation cut.

    A later `--as-of` or a shorter holdout would have shown it what this test asks for.
    """
    cut = snapshot_times(context.tables)[EVALUATION]
    if champion[c.AS_OF] <= cut:
        return
    version = loaded.data_versions["normalization"]
    try:
        fitted = read_arrow(context.tables, schemas.EVALUATION_NORMALIZATION, columns=[c.AS_OF], version=version)
    except (DeltaError, OSError, InputContractError) as error:
        raise ModelError(f"version {version} of its normalisation, which tells its cut, is gone: {error}") from error
    learnt_until = max(fitted[c.AS_OF].to_pylist())
    if learnt_until > cut:
        raise ModelError(
            f"it learnt from events until {learnt_until:%Y-%m-%d %H:%M}, after the cut {cut:%Y-%m-%d %H:%M}"
        )
