"""Files on any file system that Spark reaches: listing, first bytes, Parquet footers. No Spark job is started here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject


def hadoop_path(spark: SparkSession, path: str) -> JavaObject:
    """`path` as a Hadoop path, so that any file system Spark can reach is listed the same way."""
    return _jvm(spark).org.apache.hadoop.fs.Path(path)


def list_files(spark: SparkSession, path: str) -> list[tuple[str, int, int]]:
    """(path, bytes, modified in epoch ms) of every data file at `path` (a file, a folder, or a glob), sorted by path.

    Names that begin with "_" or "." are not data, as everywhere in Spark.
    """
    pattern = hadoop_path(spark, path)
    system = file_system(spark, pattern)
    pending = list(system.globStatus(pattern) or [])
    files: list[tuple[str, int, int]] = []
    while pending:
        status = pending.pop()
        if status.getPath().getName().startswith(("_", ".")):
            continue
        if status.isDirectory():
            pending.extend(system.listStatus(status.getPath()))
        else:
            files.append((status.getPath().toString(), status.getLen(), status.getModificationTime()))
    return sorted(files)


def file_system(spark: SparkSession, path: JavaObject) -> Any:
    return path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


def _jvm(spark: SparkSession) -> Any:
    return spark.sparkContext._jvm


def java_cause(error: Exception) -> str:
    """The first line of what a Java exception says, without its class and stack."""
    java = getattr(error, "java_exception", None)
    return str(java.getMessage() or java.getClass().getSimpleName()) if java is not None else str(error)


def file_header(spark: SparkSession, path: str, size: int) -> bytes:
    """The first `size` bytes of a text file, decompressed where its name says that it is compressed."""
    jvm = _jvm(spark)
    file = hadoop_path(spark, path)
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    stream = file_system(spark, file).open(file)
    try:
        codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(configuration).getCodec(file)
        opened = stream if codec is None else codec.createInputStream(stream)
        return bytes(
            jvm.org.apache.commons.io.IOUtils.toByteArray(
                jvm.org.apache.commons.io.input.BoundedInputStream(opened, size)
            )
        )
    finally:
        stream.close()


def parquet_columns(spark: SparkSession, path: str) -> list[str]:
    """The top-level column names in the footer of a Parquet file."""
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    reader = _jvm(spark).org.apache.parquet.hadoop.ParquetFileReader
    footer = reader.readFooter(configuration, hadoop_path(spark, path))
    return [field.getName() for field in footer.getFileMetaData().getSchema().getFields()]


def upload_folder(spark: SparkSession, source: Path, target: str) -> None:
    """Copy a local folder to `target` on any file system; it replaces what an interrupted run left there."""
    path, staged = hadoop_path(spark, target), hadoop_path(spark, f"{target}.writing")
    system = file_system(spark, path)
    system.delete(staged, True)
    system.mkdirs(path.getParent())
    system.copyFromLocalFile(False, True, hadoop_path(spark, source.resolve().as_uri()), staged)
    system.delete(path, True)
    if not system.rename(staged, path):
        raise OSError(f"cannot rename {target}.writing to {target}")


def download_folder(spark: SparkSession, source: str, target: Path) -> None:
    """Copy a folder from any file system to the local folder `target`, which must not exist."""
    path = hadoop_path(spark, source)
    system = file_system(spark, path)
    if not system.exists(path):
        raise FileNotFoundError(source)
    system.copyToLocalFile(False, path, hadoop_path(spark, target.resolve().as_uri()), True)
