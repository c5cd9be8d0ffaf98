"""What the contract of a table asks of rows, in Spark and in Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
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


def _bare(kind: Any) -> Any:
    """A type's JSON without nullability, which Delta widens and Spark infers too strictly to compare."""
    if isinstance(kind, dict):
        dropped = ("nullable", "containsNull", "valueContainsNull", "metadata")
        return {key: _bare(value) for key, value in kind.items() if key not in dropped}
    return [_bare(part) for part in kind] if isinstance(kind, list) else kind
