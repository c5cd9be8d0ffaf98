"""A Delta table as the Parquet files that one of its versions holds, where driver and workers share its folder.

Delta's own reader loads a table's state by Spark jobs, which for a small table take longer than reading it.
"""

from __future__ import annotations

import json
from urllib.parse import unquote

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

# More are for Delta, which does not hand on every name through the driver's Python.
_MOST_FILES = 20_000
# What a reader has to know beyond Parquet itself: nothing, up to this version of the protocol.
_PLAIN_READER = 1


def read_active_files(spark: SparkSession, folder: str, version: int) -> DataFrame | None:
    """The rows of a version; None where it takes more than reading its files.

    Raises:
        DeltaError: the table has no such version.
    """
    table = DeltaTable(folder, version=version)
    if table.protocol().min_reader_version > _PLAIN_READER:
        return None
    files = [f"{folder}/{unquote(path)}" for path in table.get_add_actions().column("path").to_pylist()]
    if len(files) > _MOST_FILES:
        return None
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    if not files:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).option("basePath", folder).parquet(*files).select(*schema.names)
