"""One run of all stages over a slice of real data, shared by every test of this layer."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from tests.pipeline.slice import Slice, make_slice
from tests.pipeline.support import Release, run


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    return make_slice(tmp_path_factory.mktemp("slice") / "raw")


@pytest.fixture(scope="session")
def release(spark: SparkSession, raw: Slice, tmp_path_factory: pytest.TempPathFactory) -> Release:
    warehouse = tmp_path_factory.mktemp("pipeline") / "warehouse"
    config = raw.config(warehouse)
    return Release(spark, raw, warehouse, config, run(spark, config, run_id="first"))
