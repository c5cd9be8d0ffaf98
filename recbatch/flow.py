"""The whole system on one page: every stage, what it reads, what it writes, and what its result depends on.

The command line, `jobs/` and the documentation are derived from this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recbatch.context import StageContext
from recbatch.stages.clean import clean
from recbatch.stages.evaluate import evaluate
from recbatch.stages.features import build_features
from recbatch.stages.publish import publish
from recbatch.stages.score import score
from recbatch.stages.train import train
from recbatch.tables import schemas as tables
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec


@dataclass(frozen=True)
class Stage:
    """One step from table versions to table versions.

    `options` names the sections or single options that its result depends on: a change elsewhere does not make it
    run again. `reads_raw` marks the stage whose inputs are the raw files. `uses_as_of` marks the stage that cuts the
    log at `--as-of`.
    """

    name: str
    summary: str
    run: Callable[[StageContext], StageResult]
    reads: tuple[TableSpec, ...]
    writes: tuple[TableSpec, ...]
    options: tuple[str, ...]
    reads_raw: bool = False
    uses_as_of: bool = False


STAGES: tuple[Stage, ...] = (
    Stage(
        "clean",
        "Parse, judge and de-duplicate what is new in the raw log and catalogue; every row lands in a table.",
        clean,
        reads=(),
        writes=(
            tables.ITEMS,
            tables.REJECTED_ITEMS,
            tables.EVENTS,
            tables.REJECTED_EVENTS,
            tables.BOTS,
            tables.DATA_QUALITY,
            tables.ITEM_HISTORY,
            tables.IMPUTATIONS,
        ),
        options=("input", "cleaning"),
        reads_raw=True,
    ),
    Stage(
        "features",
        "Index items, cut user sequences, normalise item features and count co-occurrence, as of three dates.",
        build_features,
        reads=(tables.EVENTS, tables.ITEM_HISTORY),
        writes=(
            tables.ITEM_INDEX,
            tables.CATEGORY_INDEX,
            tables.USER_SEQUENCES,
            tables.ITEM_FEATURES,
            tables.NORMALIZATION,
            tables.ITEM_NEIGHBOURS,
            tables.ITEM_POPULARITY,
            tables.EVALUATION_USER_SEQUENCES,
            tables.EVALUATION_ITEM_FEATURES,
            tables.EVALUATION_NORMALIZATION,
            tables.EVALUATION_ITEM_NEIGHBOURS,
            tables.EVALUATION_ITEM_POPULARITY,
            tables.VALIDATION_ITEM_NEIGHBOURS,
            tables.VALIDATION_ITEM_POPULARITY,
            tables.EVALUATION_TARGETS,
            tables.SNAPSHOTS,
            tables.EARLIER_BEHAVIOURS,
            tables.FEATURE_STATE,
        ),
        options=("input", "features"),
        uses_as_of=True,
    ),
    Stage(
        "train",
        "Fit the sequence model on sampled buckets of the past, then refit it for the test and for release.",
        train,
        reads=(
            tables.USER_SEQUENCES,
            tables.ITEM_FEATURES,
            tables.ITEM_NEIGHBOURS,
            tables.EVALUATION_USER_SEQUENCES,
            tables.EVALUATION_ITEM_FEATURES,
            tables.EVALUATION_ITEM_NEIGHBOURS,
            tables.EVALUATION_ITEM_POPULARITY,
            tables.VALIDATION_ITEM_NEIGHBOURS,
            tables.VALIDATION_ITEM_POPULARITY,
            tables.ITEM_POPULARITY,
            tables.NORMALIZATION,
            tables.EVALUATION_NORMALIZATION,
            tables.SNAPSHOTS,
        ),
        writes=(tables.CANDIDATES,),
        options=("seed", "model", "training", "features.buckets"),
    ),
    Stage(
        "evaluate",
        "Test the model of the past on what came after, over all items, beside the baselines and the champion.",
        evaluate,
        reads=(
            tables.CANDIDATES,
            tables.EVALUATION_USER_SEQUENCES,
            tables.EVALUATION_ITEM_FEATURES,
            tables.EVALUATION_ITEM_POPULARITY,
            tables.EVALUATION_TARGETS,
            tables.CATEGORY_INDEX,
            tables.EVENTS,
            tables.SNAPSHOTS,
        ),
        writes=(tables.EVALUATIONS, tables.MODELS),
        options=(
            "seed",
            "model",
            "evaluation",
            "training.sample_share",
            "features.buckets",
            "features.recent_days",
            "scoring.filter_viewed",
        ),
    ),
    Stage(
        "score",
        "Score every user against every item on the executors and stage the exact top K with reasons.",
        score,
        reads=(
            tables.MODELS,
            tables.USER_SEQUENCES,
            tables.ITEM_FEATURES,
            tables.ITEM_POPULARITY,
            tables.NORMALIZATION,
            tables.SNAPSHOTS,
        ),
        writes=(
            tables.STAGED_RECOMMENDATIONS,
            tables.STAGED_AUDIENCE_PARTS,
            tables.STAGED_AUDIENCES,
            tables.STAGED_SCORING,
            tables.STAGED_DEFAULT_RECOMMENDATIONS,
        ),
        options=("scoring", "features.buckets"),
    ),
    Stage(
        "publish",
        "Check the gates and commit the staged tables as one release.",
        publish,
        reads=(
            tables.STAGED_RECOMMENDATIONS,
            tables.STAGED_SCORING,
            tables.STAGED_DEFAULT_RECOMMENDATIONS,
            tables.EVALUATIONS,
            tables.USER_SEQUENCES,
            tables.SNAPSHOTS,
        ),
        writes=(
            tables.RECOMMENDATIONS,
            tables.RECOMMENDATIONS_BY_USER,
            tables.DEFAULT_RECOMMENDATIONS,
            tables.RELEASES,
        ),
        options=("publishing", "scoring.k"),
    ),
)


def stage_named(name: str) -> Stage:
    """The stage called `name`; an unknown name is a defect of the caller."""
    return next(stage for stage in STAGES if stage.name == name)
