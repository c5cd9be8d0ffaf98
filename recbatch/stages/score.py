"""The stage `score`: every user against every item on the executors, staged for the gates."""

from __future__ import annotations

import datetime as dt
import time
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.context import StageContext
from recbatch.errors import ModelError, UsageError
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.defaults import default_recommendations
from recbatch.scoring.pairs import score_udf, user_histories
from recbatch.scoring.plan import Plan, bucket_groups, calibrate
from recbatch.scoring.progress import watched_scoring
from recbatch.scoring.recommend import create_meters, merged_audiences, prepared
from recbatch.scoring.shipping import shipped_to_workers
from recbatch.scoring.staging import Staging
from recbatch.scoring.worker import ChosenItems, Meters, Request, Shipped
from recbatch.scoring.writing import ListWriter
from recbatch.stages.inputs import (
    CHAMPION,
    RELEASE,
    features_of_model,
    load_artifact,
    read_parameters,
    read_popularity,
    snapshot_times,
)
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.ledger import StageResult

_QUICK_LOOK = 0.1  # seconds: it only decides how many buckets are committed together
_SLOWEST_USER, _SLOWEST_PAIR = 2e-3, 2e-8  # seconds of one core: several times what a slow machine needs


def score(context: StageContext) -> StageResult:
    """`user_sequences` and the champion model to staged lists of the exact top K, and the default list.

    Raises:
        UsageError: `scoring.audience_items` names an unknown item.
        ModelError: there is no champion, its artifact does not fit the tables, or a score is not finite.
    """
    tables, section = context.tables, context.config.scoring
    model = _champion(context)
    scorer = load_scorer(context, model[c.MODEL_PATH])
    users, items = tables.rows(schemas.USER_SEQUENCES), scorer.catalogue.eligible
    pairs = users * items
    context.progress.notify(
        f"scoring {users:,} users x {items:,} items = {pairs:,} pairs with model {model[c.MODEL_VERSION]}"
    )
    began = time.monotonic()
    meters = create_meters(context.spark.sparkContext)
    with shipped_to_workers(context.spark.sparkContext, scorer, section) as shipped:
        stage_lists(context, scorer, shipped, meters, model, users)
    seconds = time.monotonic() - began
    defaults = default_recommendations(
        tables.read(schemas.ITEM_FEATURES), tables.read(schemas.ITEM_POPULARITY), section.default_k
    )
    tables.replace(schemas.STAGED_DEFAULT_RECOMMENDATIONS, _stamped(context, defaults, model), context.transaction)
    scored = meters.users.value // section.item_shards
    return StageResult(
        row_counts={
            "users": users,
            "users_scored": scored,
            "items": items,
            "pairs": scored * items,
            "recommendations": tables.rows(schemas.STAGED_RECOMMENDATIONS),
        },
        figures={
            "seconds": seconds,
            "encoding_seconds": meters.encoding.value,
            "ranking_seconds": meters.ranking.value,
            "explaining_seconds": meters.explaining.value,
            "writing_seconds": meters.writing.value,
            "pairs_a_second": scored * items / seconds,
            "worker_peak_mb": meters.peak_mb.value,
        },
        message=f"{scored:,} of {users:,} users scored, {scored * items:,} pairs in {seconds:.1f} s, "
        f"{scored * items / seconds / 1e6:,.1f} million a second, written",
    )


def stage_lists(
    context: StageContext, scorer: Scorer, shipped: Shipped, meters: Meters, model: dict[str, Any], n_users: int
) -> None:
    """Write the lists of all buckets that a killed attempt at this run has not written, group by group."""
    tables, section = context.tables, context.config.scoring
    spec, version = schemas.STAGED_RECOMMENDATIONS, context.transaction.version
    signature = f"{shipped.digest}/{section.k}/{section.filter_viewed}"
    audience = _audience(context, scorer)
    staging = _staging(context, signature, everyone=audience is not None)
    users = prepared(tables.read(schemas.USER_SEQUENCES), scorer, section, signature)
    n_buckets = context.config.features.buckets
    written = tables.partitions(spec)
    done = {int(one[c.USER_BUCKET]) for one in written if int(one[c.TXN_VERSION]) == version}
    missing = sorted(set(range(n_buckets)) - done)
    # What is left of a warehouse that had more buckets goes with the last group.
    beyond = sorted({int(one[c.USER_BUCKET]) for one in written} - set(range(n_buckets)))
    seconds = _expected_seconds(context, scorer, n_users)
    writer = ListWriter(tables, section, shipped, meters, version, audience, staging)
    shards = section.item_shards
    with watched_scoring(meters, context.progress, len(missing) * shards, scorer.catalogue.eligible / shards):
        for group in bucket_groups(missing, seconds * len(missing) / n_buckets, section.commit_seconds):
            replaced = group + beyond if group[-1] == missing[-1] else group
            writer.write(users, group, replaced, min(_partitions(context), len(group)))
    _stage_audiences(context, audience)
    made = {
        c.MODEL_VERSION: model[c.MODEL_VERSION],
        c.SCORER_DIGEST: signature,
        c.AS_OF: snapshot_times(tables)[RELEASE].astimezone(dt.UTC),
        c.RUN_ID: context.run_id,
        c.TXN_VERSION: version,
    }
    tables.replace_few(schemas.STAGED_SCORING, [made], context.transaction)


def _expected_seconds(context: StageContext, scorer: Scorer, n_users: int) -> float:
    """Of a full run; what is shorter than a commit in any case is not measured."""
    section, cores = context.config.scoring, context.spark.sparkContext.defaultParallelism
    at_most = n_users * (_SLOWEST_USER + scorer.catalogue.eligible * _SLOWEST_PAIR) / cores
    if at_most <= section.commit_seconds:
        return at_most
    request = Request(section.k, section.filter_viewed, section.batch_users)
    return n_users * calibrate(scorer, _sample(context), request, _QUICK_LOOK).seconds_a_user / cores


def _audience(context: StageContext, scorer: Scorer) -> ChosenItems | None:
    """The items of `scoring.audience_items` by place; raises UsageError where one is unknown."""
    section = context.config.scoring
    if not section.audience_items:
        return None
    places = pc.index_in(pa.array(section.audience_items, pa.string()), scorer.item_ids).to_pylist()
    unknown = [name for name, place in zip(section.audience_items, places, strict=True) if place is None]
    if unknown:
        raise UsageError(
            f"scoring.audience_items: item '{unknown[0]}' is in no event and no catalogue; {len(unknown)} such",
            remedy="name items by the item_id of table 'item_features'",
        )
    return ChosenItems(tuple(dict.fromkeys(places)), section.audience_size)


def _stage_audiences(context: StageContext, audience: ChosenItems | None) -> None:
    """Merge the parts that this run has left; without a request, what an earlier one asked for goes."""
    tables, spec = context.tables, schemas.STAGED_AUDIENCES
    if audience is not None:
        parts = tables.read(schemas.STAGED_AUDIENCE_PARTS).where(F.col(c.TXN_VERSION) == context.transaction.version)
        tables.replace(spec, merged_audiences(parts, audience.size), context.transaction)
    elif tables.version(spec) is not None:
        tables.replace(spec, context.spark.createDataFrame([], spec.schema), context.transaction)


def _staging(context: StageContext, signature: str, *, everyone: bool) -> Staging:
    """What earlier runs have left; an empty table of today's columns where there is none.

    everyone: users who have not changed are scored as well, since they are to be found for an item.
    """
    tables, spec = context.tables, schemas.STAGED_RECOMMENDATIONS
    for needed in (spec, schemas.STAGED_AUDIENCE_PARTS) if everyone else (spec,):
        if not tables.has_contract(needed):
            tables.create(needed)
    made: list[str] = []
    if tables.version(schemas.STAGED_SCORING) is not None:
        made = read_arrow(tables, schemas.STAGED_SCORING)[c.SCORER_DIGEST].to_pylist()
    return Staging(partial(tables.read, spec), not everyone and made == [signature])


def load_scorer(context: StageContext, path: str) -> Scorer:
    """The artifact at `path` made ready for the items of `item_features`. Raises ModelError as `load_artifact` does.

    A model keeps the normalisation it was trained with, whatever newer features were normalised by.
    """
    tables = context.tables
    features = read_arrow(tables, schemas.ITEM_FEATURES).sort_by(c.ITEM_IDX)
    item_ids = features[c.ITEM_ID].to_pylist()
    loaded = load_artifact(context.spark, path, item_ids)
    fitted = read_parameters(tables, schemas.NORMALIZATION)
    return Scorer.create(
        loaded,
        features_of_model(features, fitted, loaded),
        read_popularity(tables, schemas.ITEM_POPULARITY, len(item_ids)),
        item_ids,
        np.asarray(features[c.ELIGIBLE].to_pylist(), dtype=np.bool_),
        context.config.scoring.tile_items,
    )


def _sample(context: StageContext) -> pa.RecordBatch:
    """The users of one bucket, in the order of their ids: the first that has any."""
    for bucket in range(context.config.features.buckets):
        rows = read_arrow(context.tables, schemas.USER_SEQUENCES, bucket=bucket)
        if len(rows):
            return rows.sort_by(c.USER_ID).combine_chunks().to_batches()[0]
    raise ModelError("table 'user_sequences' has no user", remedy="run `recbatch features` on a log with events")


def _champion(context: StageContext) -> dict[str, Any]:
    champions = context.tables.read(schemas.MODELS).where(F.col(c.STATUS) == CHAMPION)
    latest = champions.orderBy(F.desc(c.SEQUENCE_NUMBER)).first()
    if latest is None:
        raise ModelError(
            "no model has passed its evaluation yet", remedy="run `recbatch train` and `recbatch evaluate`"
        )
    return latest.asDict()


def _partitions(context: StageContext) -> int:
    """Tasks of the scoring stage: four a core, so that a slow one does not hold up the rest."""
    wanted = context.config.scoring.partitions
    return wanted or min(4 * context.spark.sparkContext.defaultParallelism, context.config.features.buckets)


def _stamped(context: StageContext, rows: DataFrame, model: dict[str, Any]) -> DataFrame:
    as_of = snapshot_times(context.tables)[RELEASE]
    return rows.withColumns(
        {c.MODEL_VERSION: F.lit(model[c.MODEL_VERSION]), c.AS_OF: F.lit(as_of), c.RUN_ID: F.lit(context.run_id)}
    )


def plan_scoring(context: StageContext) -> Plan:
    """What scoring all users with the champion takes, by a measurement of two seconds; writes nothing.

    Raises:
        InputContractError: a table that the stage reads does not exist.
        ModelError: as `score`, or there is no user.
    """
    section, spark = context.config.scoring, context.spark.sparkContext
    sample, model = _sample(context), _champion(context)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        scorer = load_scorer(context, model[c.MODEL_PATH])
        measured = calibrate(scorer, sample, Request(section.k, section.filter_viewed, section.batch_users))
    finally:
        torch.set_num_threads(threads)
    users = context.tables.rows(schemas.USER_SEQUENCES)
    return Plan.create(
        scorer, section, measured, users=users, cores=spark.defaultParallelism, tasks=_partitions(context)
    )


def register_pair_scoring(
    context: StageContext, function: str = "recbatch_score", view: str = "user_histories"
) -> None:
    """Give the session's SQL `function`(history, item_id) by the champion and the view (user_id, history).

    Both stay until the session ends and keep the model that is the champion now. Pairs have the scores of the lists
    that `score` makes of the same model and features.

    Raises:
        InputContractError: a table that they read does not exist.
        ModelError: as `score`.
    """
    scorer = load_scorer(context, _champion(context)[c.MODEL_PATH])
    context.spark.udf.register(function, score_udf(context.spark.sparkContext, scorer))
    user_histories(context.tables.read(schemas.USER_SEQUENCES), scorer).createOrReplaceTempView(view)
