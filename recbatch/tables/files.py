"""Files on any file system that Spark reaches: listing, first bytes, Parquet footers. No Spark job is started here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession
from pyspark.sql import types as t

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


def parquet_columns(spark: SparkSession, path: str) -> list[tuple[str, str]]:
    """(name, kind) of the top-level columns in the footer of a Parquet file; kinds as in `kind_of_type`."""
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    reader = _jvm(spark).org.apache.parquet.hadoop.ParquetFileReader
    footer = reader.readFooter(configuration, hadoop_path(spark, path))
    return [(field.getName(), _parquet_kind(field)) for field in footer.getFileMetaData().getSchema().getFields()]


def _parquet_kind(field: Any) -> str:
    if not field.isPrimitive():
        return "nested"
    physical = str(field.asPrimitiveType().getPrimitiveTypeName())
    logical = str(field.getLogicalTypeAnnotation() or "")
    if physical == "INT96" or logical.startswith(("TIMESTAMP", "DATE")):
        return "time"
    if physical == "BOOLEAN":
        return "boolean"
    textual = physical in ("BINARY", "FIXED_LEN_BYTE_ARRAY") and not logical.startswith("DECIMAL")
    return "text" if textual else "number"


def kind_of_type(kind: t.DataType) -> str:
    """number, text, time, boolean or nested: what a column may not change to while it keeps its name."""
    if isinstance(kind, t.NumericType):
        return "number"
    if isinstance(kind, t.StringType | t.BinaryType):
        return "text"
    if isinstance(kind, t.TimestampType | t.TimestampNTZType | t.DateType):
        return "time"
    return "boolean" if isinstance(kind, t.BooleanType) else "nested"


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


def read_text(spark: SparkSession, path: str) -> str | None:
    """A small text file, or None where it does not exist."""
    file = hadoop_path(spark, path)
    system = file_system(spark, file)
    if not system.exists(file):
        return None
    stream = system.open(file)
    try:
        return bytes(_jvm(spark).org.apache.commons.io.IOUtils.toByteArray(stream)).decode()
    finally:
        stream.close()


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a small text file whole or not at all; one that is there is replaced."""
    file, staged = hadoop_path(spark, path), hadoop_path(spark, f"{path}.writing")
    system = file_system(spark, file)
    stream = system.create(staged, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()
    system.delete(file, False)
    if not system.rename(staged, file):
        raise OSError(f"cannot rename {path}.writing to {path}")


def folder_names(spark: SparkSession, path: str) -> list[str]:
    """The names of what a folder holds, sorted; none where it does not exist."""
    folder = hadoop_path(spark, path)
    system = file_system(spark, folder)
    if not system.exists(folder):
        return []
    return sorted(status.getPath().getName() for status in system.listStatus(folder))


def remove(spark: SparkSession, path: str) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    target = hadoop_path(spark, path)
    file_system(spark, target).delete(target, True)
