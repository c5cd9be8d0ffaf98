"""What is read to train: the catalogue of a cut, its sequences as local files, and what was known before validation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recbatch.context import StageContext
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.stages.inputs import (
    EVALUATION,
    RELEASE,
    VALIDATION,
    normalised,
    normalised_features,
    read_parameters,
    read_popularity,
    sampled_buckets,
    snapshot_times,
)
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import export_buckets, read_arrow
from recbatch.tables.schemas import TableSpec
from recbatch.training.batches import Weighting
from recbatch.training.judging import Past
from recbatch.training.run import Inputs
from recbatch.training.validation import Window


@dataclass(frozen=True)
class Cut:
    """The tables of one cut that a training reads."""

    features: TableSpec
    neighbours: TableSpec
    normalization: TableSpec
    sequences: TableSpec


CUTS: Mapping[str, Cut] = {
    EVALUATION: Cut(
        schemas.EVALUATION_ITEM_FEATURES,
        schemas.EVALUATION_ITEM_NEIGHBOURS,
        schemas.EVALUATION_NORMALIZATION,
        schemas.EVALUATION_USER_SEQUENCES,
    ),
    RELEASE: Cut(schemas.ITEM_FEATURES, schemas.ITEM_NEIGHBOURS, schemas.NORMALIZATION, schemas.USER_SEQUENCES),
}


@dataclass(frozen=True)
class Catalogue:
    """Item-level tables of one cut, on the driver; row i of all is item_idx i."""

    features: ItemFeatures
    item_ids: list[str]
    neighbours: Neighbours


def read_items(context: StageContext, cut: str) -> tuple[ItemFeatures, list[str]]:
    """Features and ids of all items of the cut EVALUATION or RELEASE, by item_idx.

    Raises InputContractError where `features` has not run.
    """
    tables = CUTS[cut]
    rows = read_arrow(context.tables, tables.features).sort_by(c.ITEM_IDX)
    parameters = read_parameters(context.tables, tables.normalization)
    return normalised_features(rows, parameters, parameters), rows[c.ITEM_ID].to_pylist()


def read_catalogue(context: StageContext, cut: str) -> Catalogue:
    """The items of a cut with what goes with them. Raises as `read_items` does."""
    features, item_ids = read_items(context, cut)
    neighbours = Neighbours.from_arrow(read_arrow(context.tables, CUTS[cut].neighbours), len(item_ids))
    return Catalogue(features, item_ids, neighbours)


def export_inputs(context: StageContext, cut: str, features: ItemFeatures, folder: Path) -> Inputs:
    """The sampled buckets of the cut as Arrow files in `folder`, for `fit` and `refit`.

    Those of EVALUATION hold popularity as of the start of the validation window, where the score is fused.
    """
    buckets, tables = sampled_buckets(context.config), CUTS[cut]
    total, name = context.config.features.buckets, tables.sequences.name
    context.progress.notify(f"sampling {len(buckets)} of {total} buckets of {name}")
    parameters = read_parameters(context.tables, tables.normalization)
    prepare = partial(normalised, parameters=parameters)
    files = export_buckets(context.tables, tables.sequences, buckets, folder, prepare)
    types = context.config.input.events.types()
    inputs = Inputs(files, features, len(types), weighting=Weighting.create(context.config.training, types))
    if cut != EVALUATION or not context.config.model.fused:
        return inputs
    prior = read_popularity(context.tables, schemas.VALIDATION_ITEM_POPULARITY, len(features))
    return replace(inputs, popularity=prior)


def validation_window(cuts: Mapping[str, dt.datetime]) -> Window:
    """From the cut of validation to that of evaluation; cuts: as from `snapshot_times`."""
    return Window(int(cuts[VALIDATION].timestamp()), int(cuts[EVALUATION].timestamp()))


def read_past(context: StageContext, inputs: Inputs, window: Window) -> Past:
    """With neighbours and popularity that do not know the validation window either; inputs: of the cut EVALUATION."""
    n_items = len(inputs.features)
    popularity = read_popularity(context.tables, schemas.VALIDATION_ITEM_POPULARITY, n_items)
    before = read_arrow(context.tables, schemas.VALIDATION_ITEM_NEIGHBOURS)
    return Past(inputs, Neighbours.from_arrow(before, n_items), popularity, window, context.config.seed)


def export_past(context: StageContext, folder: Path) -> Past:
    """What the stage `train` fits and judges its first network with; the sequences lie in `folder` from then on.

    Nothing is written to the warehouse. Raises InputContractError where `features` has not run.
    """
    features, _ = read_items(context, EVALUATION)
    inputs = export_inputs(context, EVALUATION, features, folder)
    return read_past(context, inputs, validation_window(snapshot_times(context.tables)))
