"""What several stages read in the same way: cuts, sampled buckets, popularity, artifacts."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import SparkSession

from recbatch.config.sections import Config
from recbatch.errors import ModelError
from recbatch.model import artifact
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Popularity
from recbatch.model.items import ItemFeatures
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.files import download_folder
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore
from recbatch.transforms.attributes import number_names
from recbatch.transforms.parameters import Parameters, drift, normalise

CHAMPION = "champion"
REJECTED = "rejected"
RELEASE = "release"
EVALUATION = "evaluation"
VALIDATION = "validation"
_OF_ITEMS = "items."


def snapshot_times(tables: TableStore) -> dict[str, dt.datetime]:
    """The moments that the features were made for, by snapshot name."""
    return {row[c.SNAPSHOT]: row[c.AS_OF] for row in read_arrow(tables, schemas.SNAPSHOTS).to_pylist()}


def sampled_buckets(config: Config) -> list[int]:
    """The buckets whose users come to the driver: a seeded sample of `training.sample_share` of them."""
    buckets = config.features.buckets
    size = max(1, round(config.training.sample_share * buckets))
    chosen = np.random.default_rng(config.seed).permutation(buckets)[:size]
    return sorted(int(bucket) for bucket in chosen)


def read_popularity(tables: TableStore, spec: TableSpec, n_items: int) -> Popularity:
    """Users an item, ever and recently, aligned with item_idx; items without a row have none."""
    rows = read_arrow(tables, spec)
    ever, recent = torch.zeros(n_items), torch.zeros(n_items)
    at = torch.from_numpy(rows[c.ITEM_IDX].to_numpy().astype(np.int64))
    ever[at] = torch.from_numpy(rows[c.POPULARITY].to_numpy().astype(np.float32))
    recent[at] = torch.from_numpy(rows[c.RECENT_POPULARITY].to_numpy().astype(np.float32))
    return Popularity(ever, recent)


def read_parameters(tables: TableStore, spec: TableSpec) -> dict[str, Parameters]:
    """What each column was normalised by, as `<table>.<column>`."""
    return _by_column(read_arrow(tables, spec).to_pylist())


def _by_column(rows: list[dict[str, Any]]) -> dict[str, Parameters]:
    return {
        f"{row[c.TABLE_NAME]}.{row[c.COLUMN_NAME]}": Parameters(row[c.METHOD], row[c.CENTER], row[c.SCALE], row[c.FILL])
        for row in rows
    }


def normalised_features(
    rows: pa.Table, fitted: Mapping[str, Parameters], trained: Mapping[str, Parameters]
) -> ItemFeatures:
    """The rows of `item_features` as a model takes them: their numbers normalised as when it was trained.

    fitted: what `features` found for these rows, as from `read_parameters`. trained: what the model was trained with.

    Raises:
        ModelError: the model was trained on other number attributes.
    """
    features = ItemFeatures.from_arrow(rows)
    mine, others = (
        number_names(name.removeprefix(_OF_ITEMS) for name in one if name.startswith(_OF_ITEMS))
        for one in (fitted, trained)
    )
    if mine != others:
        raise ModelError(
            f"items have the number attributes {', '.join(mine)}, the model was trained on {', '.join(others)}",
            remedy="train again, or restore the attributes in input.items.attributes",
        )
    raw = features.numbers.numpy()
    columns = [normalise(raw[:, at], trained[f"{_OF_ITEMS}{name}"]) for at, name in enumerate(mine) if len(rows)]
    numbers = torch.from_numpy(np.stack(columns, axis=1)) if columns else features.numbers
    return replace(features, numbers=numbers)


def features_of_model(rows: pa.Table, fitted: Mapping[str, Parameters], loaded: Artifact) -> ItemFeatures:
    """As `normalised_features`, for a model that was trained before.

    Raises:
        ModelError: it was trained on other attributes.
    """
    features, shape = normalised_features(rows, fitted, _trained_parameters(loaded)), loaded.model.shape
    mine, others = (len(features.categories), features.vectors.shape[1]), (len(shape.field_sizes), shape.n_vector)
    if mine != others:
        raise ModelError(
            f"items have {mine[0]} category and text attributes and {mine[1]} numbers in vectors, "
            f"the model was trained on {others[0]} and {others[1]}",
            remedy="train again, or restore the attributes in input.items.attributes",
        )
    return features


def _trained_parameters(loaded: Artifact) -> dict[str, Parameters]:
    """What each column was normalised by when the model was trained, as `read_parameters`."""
    return {name: Parameters(**one) for name, one in loaded.normalization.items()}


def normalization_drift(tables: TableStore, run_id: str) -> dict[str, float]:
    """Figures of how far the parameters of this run have moved from those of the run before, as `parameters.drift`.

    That is the latest version of the table `normalization` that another run wrote, since a retry may find its own.
    """
    version = tables.version(schemas.NORMALIZATION)
    found: list[list[dict[str, Any]]] = []
    while version is not None and version >= 0 and len(found) < 2:
        rows = read_arrow(tables, schemas.NORMALIZATION, version=version).to_pylist()
        if bool(found) != any(row[c.RUN_ID] == run_id for row in rows):
            found.append(rows)
        version -= 1
    return drift(*map(_by_column, found)) if len(found) == 2 else {}


def normalised(rows: pa.Table, parameters: Mapping[str, Parameters]) -> pa.Table:
    """Rows of `user_sequences` with prices and quantities as the network takes them, by `read_parameters`."""
    for name in (c.PRICE, c.QUANTITY):
        lists = rows[name].combine_chunks()
        values = normalise(lists.flatten().to_numpy(zero_copy_only=False), parameters[f"events.{name}"])
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.ListArray.from_arrays(offsets, pa.array(values)))
    return rows


def load_artifact(spark: SparkSession, path: str, item_ids: list[str]) -> Artifact:
    """The artifact in the folder `path` on any file system, checked against the item index.

    Raises:
        ModelError: the folder is missing, damaged, or made for other items.
    """
    with tempfile.TemporaryDirectory(prefix="recbatch-model-") as scratch:
        folder = Path(scratch) / "model"
        try:
            download_folder(spark, path, folder)
        except FileNotFoundError as error:
            raise ModelError(
                f"model folder '{path}' does not exist", remedy="restore it, or run `recbatch train`"
            ) from error
        return artifact.load(folder, item_ids)
