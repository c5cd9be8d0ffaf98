"""The stage `evaluate`: the model of the past against the baselines, on what its users did after the cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from recbatch.allocator import keep_freed_memory
from recbatch.config.learning import ModelSection
from recbatch.context import StageContext
from recbatch.errors import GateFailedError
from recbatch.evaluation import baselines
from recbatch.evaluation.baselines import Scores
from recbatch.evaluation.figures import (
    PRIMARY,
    Figure,
    Resampling,
    best_of,
    difference_figure,
    metric_figures,
    slice_figures,
)
from recbatch.evaluation.protocol import Cases, Outcome, make_cases, rank
from recbatch.evaluation.slices import WHOLE, by_age, by_category, by_history
from recbatch.stages.evaluation_inputs import (
    Items,
    Tested,
    latest_candidate,
    load_champion,
    load_past,
    read_items,
    read_users,
)
from recbatch.stages.inputs import CHAMPION, REJECTED
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult

MODEL, NETWORK, POPULARITY, RECENT, COOCCURRENCE = (
    "model",
    "network",
    "popularity",
    "recent_popularity",
    "cooccurrence",
)
BASELINES = (POPULARITY, RECENT, COOCCURRENCE)
NEW, ALL = "new", "all"


def evaluate(context: StageContext) -> StageResult:
    """The candidate's twin that knows only the past, tested over all items on what came after the cut.

    `new` ranks what a user does not have yet and counts first interactions; `all` ranks and counts everything. The
    candidate becomes champion where it holds its ground against popularity on the kind that is recommended. The twin of
    the champion before it is tested beside it where it fits.

    Raises:
        GateFailedError: the candidate is rejected and there is no earlier champion to score with.
        InputContractError: nobody took anything after the cut that could have been recommended.
        ModelError: the artifact does not fit the tables.
    """
    keep_freed_memory()
    candidate = latest_candidate(context)
    items = read_items(context)
    tested = {MODEL: load_past(context, candidate, items)}
    champion = load_champion(context, candidate, items)
    if champion is not None:
        tested[CHAMPION] = champion
    histories, seen, targets = read_users(context)
    figures: list[Figure] = []
    for kind in (NEW, ALL):
        cases, _ = make_cases(histories, seen, targets, items.eligible, new_only=kind == NEW)
        outcomes = _outcomes(context, kind, cases, items, tested)
        figures += _figures(context, kind, cases, items, outcomes)
    return _record(context, candidate, figures)


def _outcomes(
    context: StageContext, kind: str, cases: Cases, items: Items, tested: Mapping[str, Tested]
) -> dict[str, Outcome]:
    """Every scorer's lists and metrics, one scorer in memory at a time."""
    config, outcomes = context.config, {}
    scorers = _scorers(config.model, cases, items, tested)
    for done, (name, scores) in enumerate(scorers, start=1):
        outcomes[name] = rank(cases, scores, items.known, config.evaluation.cutoffs, config.scoring.tile_items)
        context.progress.advance(f"ranking {kind} items", done, len(tested) + 1 + len(BASELINES), name)
    return outcomes


def _scorers(
    section: ModelSection, cases: Cases, items: Items, tested: Mapping[str, Tested]
) -> Iterator[tuple[str, Scores]]:
    for name, one in tested.items():
        bare = baselines.network(one.loaded, one.features, cases.histories, items.tie_rank)
        yield name, baselines.fused(one.loaded, bare, items.popularity, cases.histories, items.tie_rank)
        if name == MODEL:
            yield NETWORK, bare
    n_users = len(cases.histories)
    yield POPULARITY, baselines.popularity(items.popularity.ever, n_users, items.tie_rank)
    yield RECENT, baselines.popularity(items.popularity.recent, n_users, items.tie_rank)
    neighbours, behaviours = tested[MODEL].loaded.neighbours, section.fusion_behaviours
    yield (
        COOCCURRENCE,
        baselines.cooccurrence(neighbours, cases.histories, behaviours, section.fusion_decay, items.tie_rank),
    )


def _figures(
    context: StageContext, kind: str, cases: Cases, items: Items, outcomes: Mapping[str, Outcome]
) -> list[Figure]:
    """All metrics, the model against the best baseline and against the champion, and slices of those first two."""
    resampling = Resampling(context.config.evaluation.bootstrap_samples, context.config.seed)
    best = best_of(outcomes, BASELINES)
    slices = [
        *by_age(items.seen_before),
        *by_history(np.diff(cases.histories.offsets)),
        *by_category(items.attributes, cases.truth),
    ]
    shown = {name: outcomes[name] for name in (MODEL, best)}
    return [
        *metric_figures(kind, outcomes, resampling),
        *(
            difference_figure(kind, outcomes, MODEL, other, resampling)
            for other in (best, CHAMPION)
            if other in outcomes
        ),
        *slice_figures(kind, shown, cases.truth, slices, resampling),
    ]


def _record(context: StageContext, candidate: Mapping[str, Any], figures: list[Figure]) -> StageResult:
    tables, version = context.tables, candidate[c.MODEL_VERSION]
    kind = NEW if context.config.scoring.filter_viewed else ALL
    found = {(one.scorer, one.metric): one.mean for one in figures if (one.target_kind, one.slice) == (kind, WHOLE)}
    limit = context.config.evaluation.min_ndcg_against_popularity
    passed = found[MODEL, PRIMARY] >= limit * found[POPULARITY, PRIMARY]
    as_of = candidate[c.AS_OF]
    frame = context.spark.createDataFrame(
        [(version, *one, as_of, context.run_id) for one in figures], schemas.EVALUATIONS.schema
    )
    tables.append(schemas.EVALUATIONS, frame, context.transaction)
    metrics = {f"{metric}_{kind}": found[MODEL, metric] for scorer, metric in found if scorer == MODEL}
    status = CHAMPION if passed else REJECTED
    verdict = (version, context.transaction.version, candidate[c.MODEL_PATH], status, metrics, as_of, context.run_id)
    tables.append(schemas.MODELS, context.spark.createDataFrame([verdict], schemas.MODELS.schema), context.transaction)
    compared = f"{PRIMARY} {found[MODEL, PRIMARY]:.4f}, popularity {found[POPULARITY, PRIMARY]:.4f}"
    if not passed and tables.read(schemas.MODELS).where(F.col(c.STATUS) == CHAMPION).isEmpty():
        raise GateFailedError(
            f"model {version} is rejected ({compared}, limit {limit} x popularity) and there is no earlier champion",
            remedy="train on more data or with other options, or lower evaluation.min_ndcg_against_popularity",
        )
    return StageResult(
        row_counts={"users": max(one.users for one in figures)}, figures=metrics, message=f"model {version}: {compared}"
    )
