"""The stage `score`: every user against every item on the executors, staged for the gates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import ItemAttribute
from recbatch.context import StageContext
from recbatch.errors import ModelError
from recbatch.model.artifact import Artifact
from recbatch.model.items import ItemFeatures
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.defaults import default_recommendations
from recbatch.scoring.recommend import recommend
from recbatch.stages.inputs import CHAMPION, RELEASE, load_artifact, read_parameters, read_popularity, snapshot_times
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.ledger import StageResult
from recbatch.transforms.attributes import number_fields
from recbatch.transforms.normalization import Parameters, rescaling


def score(context: StageContext) -> StageResult:
    """`user_sequences` and the champion model to staged lists of the exact top K, and the default list.

    Raises:
        ModelError: there is no champion, its artifact does not fit the tables, or a score is not finite.
    """
    tables, config = context.tables, context.config
    model = _champion(context)
    scorer = load_scorer(context, model[c.MODEL_PATH])
    sequences = tables.read(schemas.USER_SEQUENCES)
    users = tables.rows(schemas.USER_SEQUENCES)
    pairs = users * len(scorer.items)
    context.progress.notify(
        f"scoring {users:,} users x {len(scorer.items):,} items = {pairs:,} pairs with model {model[c.MODEL_VERSION]}"
    )
    shipped = context.spark.sparkContext.broadcast(scorer.to_bytes())
    began = time.monotonic()
    lists = recommend(sequences, shipped, model[c.MODEL_VERSION], config.scoring, _partitions(context))
    tables.replace(schemas.STAGED_RECOMMENDATIONS, _stamped(context, lists, model), context.transaction)
    seconds = time.monotonic() - began
    shipped.destroy()
    defaults = default_recommendations(
        tables.read(schemas.ITEM_FEATURES), tables.read(schemas.ITEM_POPULARITY), config.scoring.default_k
    )
    tables.replace(schemas.STAGED_DEFAULT_RECOMMENDATIONS, _stamped(context, defaults, model), context.transaction)
    rows = tables.rows(schemas.STAGED_RECOMMENDATIONS)
    return StageResult(
        row_counts={"users": users, "items": len(scorer.items), "pairs": pairs, "recommendations": rows},
        figures={"seconds": seconds, "pairs_a_second": pairs / seconds},
        message=f"{pairs:,} pairs in {seconds:.1f} s, {pairs / seconds / 1e6:,.1f} million a second, written",
    )


def load_scorer(context: StageContext, path: str) -> Scorer:
    """The artifact at `path` made ready for the items of `item_features`. Raises ModelError as `load_artifact` does.

    A model keeps the normalisation it was trained with: values of newer features are brought back into its units.
    """
    tables = context.tables
    features = read_arrow(tables, schemas.ITEM_FEATURES).sort_by(c.ITEM_IDX)
    item_ids = features[c.ITEM_ID].to_pylist()
    loaded = load_artifact(context.spark, path, item_ids)
    units = _units(loaded, read_parameters(tables, schemas.NORMALIZATION))
    numbers = _stacked(units, [f"items.{name}" for name in number_fields(_attributes(context))])
    items = ItemFeatures.from_arrow(features)
    return Scorer.create(
        loaded,
        ItemFeatures(items.categories, items.numbers * numbers[:, 0] + numbers[:, 1]),
        read_popularity(tables, schemas.ITEM_POPULARITY, len(item_ids)),
        item_ids,
        np.asarray(features[c.ELIGIBLE].to_pylist(), dtype=np.bool_),
        _sample(context),
        _stacked(units, [f"events.{c.PRICE}", f"events.{c.QUANTITY}"]),
    )


def _units(loaded: Artifact, current: dict[str, Parameters]) -> dict[str, tuple[float, float]]:
    """Per column what takes a value of the current features to the units of the model."""
    stored = {name: Parameters(**one) for name, one in loaded.normalization.items()}
    return {name: rescaling(one, stored[name]) for name, one in current.items() if name in stored}


def _stacked(units: dict[str, tuple[float, float]], names: list[str]) -> torch.Tensor:
    """(len(names), 2) float32; a column that the model did not have is left as it is."""
    return torch.tensor([units.get(name, (1.0, 0.0)) for name in names], dtype=torch.float32).view(-1, 2)


def _attributes(context: StageContext) -> Mapping[str, ItemAttribute]:
    items = context.config.input.items
    return {} if items is None else items.attributes


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
