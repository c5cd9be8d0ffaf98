"""What the contract of a table asks of rows, in Spark and in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as t
from pyspark.sql.pandas.types import to_arrow_schema

from recbatch.tables.schemas import TableSpec


def arrow_schema(spec: TableSpec) -> pa.Schema:
    """The columns of the contract as Arrow has them, times in UTC."""
    return to_arrow_schema(spec.schema, timezone="UTC")


def in_contract(spec: TableSpec, rows: DataFrame) -> DataFrame:
    """`rows` with the columns of the contract in its order; a missing or retyped column is a defect of the stage."""
    actual = {field.name: field.dataType for field in rows.schema}
    for field in spec.schema:
        if field.name not in actual:
            raise ValueError(f"table '{spec.name}': the column '{field.name}' of its contract is missing")
        if _bare(actual[field.name].jsonValue()) != _bare(field.dataType.jsonValue()):
            raise ValueError(
                f"table '{spec.name}': column '{field.name}' is {actual[field.name].simpleString()}, "
                f"its contract says {field.dataType.simpleString()}"
            )
    return rows.select(*[field.name for field in spec.schema])


def completed(spec: TableSpec, rows: DataFrame) -> DataFrame:
    """`rows` of the table, with the columns that an older release did not know: empty lists and maps, or null."""
    there = set(rows.columns)
    lacking = {field.name: _nothing(field.dataType) for field in spec.schema if field.name not in there}
    return rows.withColumns(lacking) if lacking else rows


def _nothing(kind: t.DataType) -> Column:
    if isinstance(kind, t.MapType):
        return F.create_map().cast(kind)
    return (F.array() if isinstance(kind, t.ArrayType) else F.lit(None)).cast(kind)


def completed_arrow(spec: TableSpec, rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """The same in Arrow, for the columns `names`."""
    schema = arrow_schema(spec)
    for at, name in enumerate(names):
        if name not in rows.column_names:
            kind = schema.field(name).type
            nested = pa.types.is_list(kind) or pa.types.is_map(kind)
            nothing = pa.array([[] if nested else None], kind)
            rows = rows.add_column(at, name, nothing.take(pa.array(np.zeros(len(rows), np.int64))))
    return rows


def _bare(kind: Any) -> Any:
    """A type's JSON without nullability, which Delta widens and Spark infers too strictly to compare."""
    if isinstance(kind, dict):
        dropped = ("nullable", "containsNull", "valueContainsNull", "metadata")
        return {key: _bare(value) for key, value in kind.items() if key not in dropped}
    return [_bare(part) for part in kind] if isinstance(kind, list) else kind
