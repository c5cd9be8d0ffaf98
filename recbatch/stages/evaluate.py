"""The stage `evaluate`: the model of the past against the baselines, on what its users did after the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import functions as F

from recbatch.allocator import keep_freed_memory
from recbatch.context import StageContext
from recbatch.errors import GateFailedError, InputContractError
from recbatch.evaluation import baselines
from recbatch.evaluation.baselines import Scores
from recbatch.evaluation.bootstrap import Interval, mean_interval, paired_difference
from recbatch.evaluation.protocol import Cases, Outcome, make_cases, rank
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.recommender import user_vectors
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix
from recbatch.stages.inputs import (
    CHAMPION,
    EVALUATION,
    REJECTED,
    load_artifact,
    normalised_features,
    read_parameters,
    read_popularity,
    sampled_buckets,
    trained_parameters,
)
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.ledger import StageResult

PRIMARY = "ndcg@10"
MODEL, NETWORK, POPULARITY, RECENT, COOCCURRENCE = (
    "model",
    "network",
    "popularity",
    "recent_popularity",
    "cooccurrence",
)
BASELINES = (POPULARITY, RECENT, COOCCURRENCE)
NEW, ALL = "new", "all"
_Row = tuple[str, str, str, float, float | None, float | None, int]


def evaluate(context: StageContext) -> StageResult:
    """The candidate's twin that knows only the past, tested over all items on what came after the cut.

    `new` ranks what a user does not have yet and counts first interactions; `all` ranks and counts everything. The
    candidate becomes champion where it holds its ground against popularity on the kind that is recommended.

    Raises:
        GateFailedError: the candidate is rejected and there is no earlier champion to score with.
        ModelError: the artifact does not fit the tables.
    """
    keep_freed_memory()
    candidate = _candidate(context)
    loaded, features, tie_rank = _load(context, candidate)
    histories, seen, targets = _users(context, loaded)
    popularity = read_popularity(context.tables, schemas.EVALUATION_ITEM_POPULARITY, len(features))
    eligible = read_arrow(context.tables, schemas.EVALUATION_ITEM_FEATURES, columns=[c.ITEM_IDX, c.ELIGIBLE])
    shown = np.asarray(eligible.sort_by(c.ITEM_IDX)[c.ELIGIBLE].to_pylist(), dtype=np.bool_)
    rows: list[_Row] = []
    for kind in (NEW, ALL):
        cases, _ = make_cases(histories, seen, targets, shown, new_only=kind == NEW)
        if not len(cases.histories):
            raise InputContractError(
                f"no user with a past has a target of kind '{kind}' after the cut",
                remedy="give a longer log, or raise features.holdout_days",
            )
        scorers = _scorers(context, loaded, features, popularity, cases, tie_rank)
        outcomes = {}
        for done, (name, scores) in enumerate(scorers.items(), start=1):
            outcomes[name] = rank(cases, scores, context.config.evaluation.cutoffs, context.config.scoring.tile_items)
            context.progress.advance(f"ranking {kind} items", done, len(scorers), name)
        rows += _rows(context, kind, outcomes)
    return _record(context, candidate, rows)


def _scorers(
    context: StageContext,
    loaded: Artifact,
    features: ItemFeatures,
    popularity: Popularity,
    cases: Cases,
    tie_rank: torch.Tensor,
) -> dict[str, Scores]:
    model, n_users = loaded.model, len(cases.histories)
    vectors, bias = model.item_vectors(features)
    users = user_vectors(model, vectors, cases.histories)
    fusion, section = loaded.fusion, context.config.model
    network = Scores(users, ItemMatrix(vectors, bias, tie_rank))
    shipped = network
    if fusion is not None:
        additions = loaded.neighbours.additions(cases.histories, fusion)
        shipped = Scores(users, ItemMatrix(vectors, fusion.bias(bias, popularity), tie_rank), additions)
    return {
        MODEL: shipped,
        NETWORK: network,
        POPULARITY: baselines.popularity(popularity.ever, n_users, tie_rank),
        RECENT: baselines.popularity(popularity.recent, n_users, tie_rank),
        COOCCURRENCE: baselines.cooccurrence(
            loaded.neighbours, cases.histories, section.fusion_behaviours, section.fusion_decay, tie_rank
        ),
    }


def _candidate(context: StageContext) -> dict[str, Any]:
    rows = read_arrow(context.tables, schemas.CANDIDATES).to_pylist()
    return {**max(rows, key=lambda row: row[c.SEQUENCE_NUMBER])}


def _load(context: StageContext, candidate: dict[str, Any]) -> tuple[Artifact, ItemFeatures, torch.Tensor]:
    rows = read_arrow(context.tables, schemas.EVALUATION_ITEM_FEATURES).sort_by(c.ITEM_IDX)
    path = candidate[c.MODEL_PATH].rsplit("/", 1)[0] + f"/{EVALUATION}"
    loaded = load_artifact(context.spark, path, rows[c.ITEM_ID].to_pylist())
    # Ids must not decide between equal scores: in public data their order leaks what is popular.
    tie_rank = np.random.default_rng(context.config.seed).permutation(len(rows))
    fitted = read_parameters(context.tables, schemas.EVALUATION_NORMALIZATION)
    return loaded, normalised_features(rows, fitted, trained_parameters(loaded)), torch.from_numpy(tie_rank)


def _users(context: StageContext, loaded: Artifact) -> tuple[Sequences, Csr, Csr]:
    """Histories, seen items and later items of the sampled users that have both, in the same order."""
    histories, seen, targets = [], [], []
    for bucket in sampled_buckets(context.config):
        past = read_arrow(context.tables, schemas.EVALUATION_USER_SEQUENCES, bucket=bucket).sort_by(c.USER_ID)
        later = read_arrow(context.tables, schemas.EVALUATION_TARGETS, bucket=bucket)
        at = pc.index_in(past[c.USER_ID], value_set=later[c.USER_ID])
        both = pc.is_valid(at)
        past, later = past.filter(both).combine_chunks(), later.take(at.filter(both)).combine_chunks()
        if len(past):
            histories.append(Sequences.from_arrow(past.to_batches()[0]).normalised(*loaded.amounts))
            seen.append(past[c.SEEN].chunk(0))
            targets.append(later[c.TARGETS].chunk(0))
    return Sequences.concatenate(histories), _csr(seen), _csr(targets)


def _csr(lists: list[pa.ListArray]) -> Csr:
    sizes = [np.diff(np.asarray(one.offsets, dtype=np.int64)) for one in lists]
    indptr = np.concatenate([[0], np.concatenate([[], *sizes]).cumsum()]).astype(np.int64)
    indices = np.concatenate([np.empty(0, np.int32), *(one.flatten().to_numpy() for one in lists)])
    return Csr(torch.from_numpy(indptr), torch.from_numpy(indices))


def _rows(context: StageContext, kind: str, outcomes: dict[str, Outcome]) -> list[_Row]:
    """Every metric with its interval, and the paired difference of the model and the best baseline."""
    samples = context.config.evaluation.bootstrap_samples
    rows: list[_Row] = []
    for name, outcome in outcomes.items():
        for metric, values in outcome.per_user.items():
            interval = mean_interval(values, samples, np.random.default_rng(context.config.seed))
            rows.append(_row(name, kind, metric, interval, len(values)))
        n_users = len(next(iter(outcome.per_user.values())))
        rows += [(name, kind, metric, value, None, None, n_users) for metric, value in outcome.coverage.items()]
    best = max(BASELINES, key=lambda name: float(outcomes[name].per_user[PRIMARY].mean()))
    model, baseline = outcomes[MODEL].per_user[PRIMARY], outcomes[best].per_user[PRIMARY]
    gain = paired_difference(model, baseline, samples, np.random.default_rng(context.config.seed))
    return [*rows, _row(f"{MODEL} - {best}", kind, PRIMARY, gain, len(model))]


def _row(scorer: str, kind: str, metric: str, interval: Interval, users: int) -> _Row:
    return scorer, kind, metric, interval.mean, interval.low, interval.high, users


def _record(context: StageContext, candidate: dict[str, Any], rows: list[_Row]) -> StageResult:
    tables, version = context.tables, candidate[c.MODEL_VERSION]
    kind = NEW if context.config.scoring.filter_viewed else ALL
    found = {(scorer, metric): mean for scorer, of, metric, mean, *_ in rows if of == kind}
    limit = context.config.evaluation.min_ndcg_against_popularity
    passed = found[MODEL, PRIMARY] >= limit * found[POPULARITY, PRIMARY]
    as_of = candidate[c.AS_OF]
    frame = context.spark.createDataFrame(
        [(version, *row, as_of, context.run_id) for row in rows], schemas.EVALUATIONS.schema
    )
    tables.append(schemas.EVALUATIONS, frame, context.transaction)
    metrics = {f"{metric}_{kind}": found[MODEL, metric] for scorer, metric in found if scorer == MODEL}
    status = CHAMPION if passed else REJECTED
    verdict = (version, context.transaction.version, candidate[c.MODEL_PATH], status, metrics, as_of, context.run_id)
    tables.append(schemas.MODELS, context.spark.createDataFrame([verdict], schemas.MODELS.schema), context.transaction)
    figures = f"{PRIMARY} {found[MODEL, PRIMARY]:.4f}, popularity {found[POPULARITY, PRIMARY]:.4f}"
    if not passed and tables.read(schemas.MODELS).where(F.col(c.STATUS) == CHAMPION).isEmpty():
        raise GateFailedError(
            f"model {version} is rejected ({figures}, limit {limit} x popularity) and there is no earlier champion",
            remedy="train on more data or with other options, or lower evaluation.min_ndcg_against_popularity",
        )
    return StageResult(
        row_counts={"users": max(users for *_, users in rows)}, figures=metrics, message=f"model {version}: {figures}"
    )
