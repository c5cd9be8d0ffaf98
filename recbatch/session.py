"""The Spark session every stage runs in, locally or under spark-submit, with the settings that results depend on."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from recbatch.config.sections import SparkSection
from recbatch.cores import usable_cores
from recbatch.errors import RecbatchError, UsageError
from recbatch.operations.java import find_java

# Times are UTC everywhere, and mapInArrow must refuse columns in another order instead of binding them by position.
_REQUIRED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.pyspark.validateSchema.enabled": "true",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.python.worker.reuse": "true",
    # The JVM never compiles a method of more than 8,000 bytes, and interprets it twenty times as slowly; Spark's own
    # limit, above which it splits what it generates into small methods, is eight times that.
    "spark.sql.codegen.hugeMethodLimit": "8000",
}
# The defaults are made for clusters: 50 tasks to read the state of a Delta table take seconds on a laptop.
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.databricks.delta.snapshotPartitions": "2",
    # Looking at the files of a table takes the driver less than starting a job that looks at them.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
_DELTA_JARS = ("io.delta_delta-spark_4.2_2.13-{version}.jar", "io.delta_delta-storage-{version}.jar")


def build_session(section: SparkSection, name: str) -> SparkSession:
    """Return the running session, or start one as the configuration says.

    Under spark-submit the master and the jars are the submitter's and `section.master` is not used.

    Raises:
        UsageError: Java is missing or of a version that Spark does not run on, or the session cannot start.
    """
    builder = SparkSession.builder.appName(name)
    settings = dict(_REQUIRED)
    # spark-submit starts the JVM before Python and says so by this variable.
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        settings |= _start_settings(section)
    if section.shuffle_partitions is not None:
        settings["spark.sql.shuffle.partitions"] = str(section.shuffle_partitions)
    settings |= section.settings
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except RecbatchError:
        raise
    except Exception as error:  # the JVM reports its start-up failures in no narrower type
        cause = str(error).strip().splitlines()
        raise UsageError(
            f"the Spark session '{name}' cannot start: {cause[0] if cause else type(error).__name__}",
            remedy="`recbatch doctor` checks Java, the Delta jars and the memory",
        ) from error
    # In local mode the executors log into the user's terminal, a stack trace for every row group they cannot read; what
    # failed is in our own message. On a cluster the driver's log is for operators.
    local = str(session.sparkContext.master).startswith("local")
    session.sparkContext.setLogLevel("FATAL" if local else "ERROR")
    # Both print what our own messages say already, in pages of JSON and Java.
    for noisy in ("py4j", "SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return session


def _start_settings(section: SparkSection) -> dict[str, str]:
    find_java()
    # Workers must run the interpreter (and so the packages) of the driver.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    master = section.master or "local[*]"
    settings = {"spark.master": master, "spark.driver.memory": section.driver_memory}
    if master.startswith("local"):
        settings |= _LOCAL
        settings["spark.sql.shuffle.partitions"] = str(2 * usable_cores())
    if section.packages == "auto":
        settings |= _delta_jars()
    return settings


def _delta_jars() -> dict[str, str]:
    """Point at the Delta jars in the Ivy cache; the first start on a machine downloads them into it."""
    from importlib.metadata import version

    delta = version("delta-spark")
    jars = [delta_jar_folder() / name.format(version=delta) for name in _DELTA_JARS]
    if all(jar.is_file() for jar in jars):
        return {"spark.jars": ",".join(str(jar) for jar in jars)}
    return {"spark.jars.packages": f"io.delta:delta-spark_4.2_2.13:{delta}"}


def delta_jar_folder() -> Path:
    """The folder that Spark's Ivy retrieves jars into."""
    return Path.home() / ".ivy2.5.2" / "jars"
