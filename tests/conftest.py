"""One Spark session for every layer that needs one, started by the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from pyspark.sql import SparkSession

from recbatch.config.sections import SparkSection
from recbatch.session import build_session

# How long an example takes is no property of the code: the first call of some functions compiles them.
settings.register_profile("recbatch", deadline=None)
settings.load_profile("recbatch")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    section = SparkSection(
        master="local[2]",
        driver_memory="2g",
        shuffle_partitions=2,
        settings={
            "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse")),
            # Tests run hundreds of queries over a few rows: compiling each well costs more than it saves.
            "spark.sql.codegen.wholeStage": "false",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m",
        },
    )
    session = build_session(section, "recbatch-tests")
    yield session
    session.stop()
