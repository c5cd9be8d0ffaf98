"""What several stages read in the same way: cuts, sampled buckets, popularity, artifacts."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from pathlib import Path

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
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.files import download_folder
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore
from recbatch.transforms.parameters import Parameters, normalise

CHAMPION = "champion"
REJECTED = "rejected"
RELEASE = "release"
EVALUATION = "evaluation"
VALIDATION = "validation"


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
    return {
        f"{row[c.TABLE_NAME]}.{row[c.COLUMN_NAME]}": Parameters(row[c.METHOD], row[c.CENTER], row[c.SCALE], row[c.FILL])
        for row in read_arrow(tables, spec).to_pylist()
    }


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
